"""Evaluate the captions of a bundled model.

Usage: python -m harness.lab.training.evaluate [--model NAME] [--write-card].

Captions are generated greedily with the public loader and the real processor, on scenes of the test split. The rules of
the comparison are in `tally.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import torch
import transformers
from tqdm import tqdm

from harness.data import scenes
from harness.data.order import scenes_order
from harness.data.scenes import Scene, scene
from harness.lab.training.tally import REQUIRED_ATTRIBUTES, REQUIRED_SHARE, Evaluation, Tally, judge
from harness.lab.training.trained_vision import TRAINED_VISION, chat_prompt
from harness.models.anatomy import find_anatomy
from harness.models.bundled import scenes_llava
from harness.models.bundled.checkpoint import PAD_TOKEN, read_trained
from harness.models.bundled.language import REQUIREMENT, file_sha256
from harness.models.likelihood import caption_likelihoods, winoground_scores
from harness.models.vlm import Vlm
from harness.storage.cache_directory import default_cache
from harness.storage.files import write_atomically
from harness.storage.templates import render

_NEW_TOKENS = 24
_ROWS = ("colour", "shape", "relation", "relation word", "size", "number", "exact")
_COLUMNS = ("all", "1 object", "2 objects", "3 objects", "combination seen in training", "held-out combination")


@torch.inference_mode()
def write_captions(model: Any, processor: Any, truths: Sequence[Scene]) -> list[str]:
    """Return greedy captions of one batch of scenes, generated with the chat template and the processor."""
    batch = processor(
        images=[truth.render() for truth in truths],
        text=[chat_prompt(processor)] * len(truths),
        padding=True,
        return_tensors="pt",
    )
    batch["pixel_values"] = batch["pixel_values"].to(model.dtype)
    written = model.generate(**batch, max_new_tokens=_NEW_TOKENS, do_sample=False)
    captions: list[str] = processor.batch_decode(written[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return captions


def evaluate(model: Any, processor: Any, samples: int, seed: int, batch: int = 50) -> Tally:
    """Return the tally over the first `samples` scenes of the test split."""
    tally = Tally()
    for first in tqdm(range(0, samples, batch), disable=not sys.stderr.isatty(), desc="captions"):
        truths = [scene(index, seed) for index in range(first, min(samples, first + batch))]
        for truth, caption in zip(truths, write_captions(model, processor, truths), strict=True):
            judge(truth, caption, tally)
    return tally


def word_order(vlm: Vlm, items: int, seed: int, batch: int = 12) -> dict[str, float]:
    """Return Winoground's text, image and group score over the first `items` word-order items.

    The captions are the canonical captions.
    """
    sides = scenes_order(2 * items, seed)
    tables = []
    for first in range(0, 2 * items, 2 * batch):
        part = sides[first : first + 2 * batch]
        pairs = list(zip(part[::2], part[1::2], strict=True))
        rows = [(image, text.captions[0]) for pair in pairs for image in pair for text in pair]
        tables.append(caption_likelihoods(vlm, *zip(*rows, strict=True)).reshape(len(pairs), 2, 2))
    return {name: float(right.mean()) for name, right in winoground_scores(np.concatenate(tables)).items()}


def write_card(measured: Evaluation, trained: Path) -> Path:
    """Write CARD.md beside the trained weights, add the accuracy to training.json, and return the card's path."""
    record_path, card = trained.with_name("training.json"), trained.with_name("CARD.md")
    record: dict[str, Any] = json.loads(record_path.read_text(encoding="utf-8"))
    tally = measured.tally
    record["held_out"] = {
        "shares": {key: round(tally.share(key), 4) for key in sorted(tally.total)},
        "word_order": {"items": measured.items, **measured.order},
    }
    write_atomically(record_path, (json.dumps(record, indent=1, sort_keys=True) + "\n").encode())
    write_atomically(card, card_text(measured, record, trained).encode())
    return card


def card_text(measured: Evaluation, record: dict[str, Any], trained: Path) -> str:
    """Return the text of the model card from the evaluation and the training record."""
    tally = measured.tally
    missed = [attribute for attribute in REQUIRED_ATTRIBUTES if tally.share(f"{attribute}/all") < REQUIRED_SHARE]
    rows = [
        [row, *(f"{tally.share(f'{row}/{c}'):.3f}" if tally.total[f"{row}/{c}"] else "" for c in _COLUMNS)]
        for row in _ROWS
    ]
    data = {
        "measured": measured,
        "record": record,
        "columns": _COLUMNS,
        "rows": [*rows, ["objects", *(tally.total[f"colour/{c}"] for c in _COLUMNS)]],
        "bar": REQUIRED_SHARE,
        "verdict": f"missed for {', '.join(missed)}" if missed else "reached",
        "requirement": REQUIREMENT,
        "scenes": scenes,
        "scenes_llava": scenes_llava,
        "pad_token": PAD_TOKEN,
        "parameters": sum(tensor.numel() for tensor in read_trained(trained).values()),
        "megabytes": trained.stat().st_size / 1e6,
        "sha256": file_sha256(trained),
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
        "fill": fill,
    }
    return render("harness.lab.training", f"{measured.model}.md.jinja", data)


def main(arguments: Iterable[str] | None = None) -> int:
    """Run the command line; return 1 if a required accuracy is missed, else 0."""
    parser = argparse.ArgumentParser(prog="python -m harness.lab.training.evaluate", description=__doc__)
    parser.add_argument("--model", choices=sorted(TRAINED_VISION), default="scenes-llava")
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--items", type=int, default=100, help="word-order items")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--trained", type=Path, help="file of the trained tensors (default: the bundled file)")
    parser.add_argument("--write-card", action="store_true", help="write CARD.md beside the trained weights")
    options = parser.parse_args(None if arguments is None else list(arguments))
    start = time.time()
    vision = TRAINED_VISION[options.model]
    trained = options.trained or vision.trained
    model, processor = vision.module.load(options.cache, torch.float32, trained=trained)
    tally = evaluate(model, processor, options.samples, options.seed)
    for key in sorted(tally.total):
        print(f"{key:45} {tally.right[key]:5d} of {tally.total[key]:5d}  {tally.share(key):.4f}")
    order = word_order(Vlm(options.model, model, processor, find_anatomy(model)), options.items, options.seed)
    print(
        f"word order, {options.items} items: " + ", ".join(f"{name} score {share:.3f}" for name, share in order.items())
    )
    print(f"measured in {time.time() - start:.0f} s")
    if options.write_card:
        measured = Evaluation(options.model, tally, order, options.samples, options.items, options.seed)
        print(f"wrote {write_card(measured, trained)}")
    return 0 if all(tally.share(f"{name}/all") >= REQUIRED_SHARE for name in REQUIRED_ATTRIBUTES) else 1


if __name__ == "__main__":
    sys.exit(main())
