"""The model card of an embedded model, written from its training record and a measured tally."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import fill
from typing import Any

import torch
import transformers

from harness.data.scenes import COLOURS, INSTRUCTION, SHAPES
from harness.lab.training.tally import BAR, BARRED, Measured, Tally
from harness.models.embedded.checkpoint import PAD_TOKEN, read_trained
from harness.models.embedded.language import REQUIREMENT, file_sha256
from harness.models.embedded.scenes_llava import IMAGE_TOKEN, IMAGE_TOKEN_ID
from harness.storage.files import write_atomically

_ROWS = ("colour", "shape", "relation", "relation word", "size", "number", "exact")
_COLUMNS = ("all", "1 object", "2 objects", "3 objects", "combination seen in training", "held-out combination")

_TEXT = """\
# {model}

{kind} small enough to be tested everywhere. It describes pictures of one to three coloured shapes and is of no use for
anything else: it exists so that what happens *inside* a vision-language model can be measured without a download of
gigabytes.

## What it is

- transformers' `{architecture}ForConditionalGeneration` and `{architecture}Processor`, unchanged.
- Language model: SmolLM2-135M-Instruct (30 layers, width 576), **frozen**, dequantised from the Q4_1 GGUF file in the
  package `{requirement}`. Not part of this repository.
{eyes} trained here: {parameters:,} parameters,
  `trained.safetensors` ({megabytes:.1f} MB, float16, SHA-256
  `{sha256}`).

## Declared choices

{choices}
- Padding on the left with `{pad_token}`. The first token, `<|im_start|>`, is what this language model calls its BOS.
- The {bridge} started at random, not aligned to word embeddings; only its scale was
  matched to theirs.
- Trained to write the canonical caption alone: objects in raster order, sizes for one or two objects only. In such
  captions the first relation is "above" or "left of"; "below" and "right of" occur in scenes of three.

## Data

Rendered scenes (`harness/data/scenes.py`): {colours} colours, {shapes} shapes, two sizes, four backgrounds. Training
and test scenes share no seed. 32 of the 320 combinations of colour, shape and background occur in no training scene;
every test scene holds at least one of them. Every pair of colour and shape occurs in training on some background.

## Training

{training}

## Accuracy on held-out scenes

Greedy captions of {samples} scenes of the test split (seed {seed}), float32, torch {torch}, transformers
{transformers}; made by `python -m harness.lab.training.evaluate --model {model} --samples {samples} --write-card`.
The rule of judgement is the docstring of `harness/lab/training/tally.py`. The bar is {bar:.0%} for colour, shape
and relation: **{verdict}**.

{table}

Colour, shape, size: share of the objects. Relation: share of the relations, counted as right only where both objects
are right too in colour and shape. Relation word: the same without regard to the objects. Number: right number of
objects. Exact: the whole caption, letter by letter.

Word order, on {items} pairs of `scenes-order` (log-likelihood of the canonical captions, Winoground's definitions):
text score {text:.3f}, image score {image:.3f}, group score {group:.3f}; guessing gives 0.25, 0.25 and 0.17.

## Limits

Pictures other than such scenes, other sizes and other instructions are outside of what it was trained for. Things in
one scene always differ in colour and in shape. What holds inside this model need not hold in larger ones.

## Licence

The trained weights: MIT, like this repository. SmolLM2-135M-Instruct: Apache-2.0 (Hugging Face TB).
"""

_ABOUT = {
    "scenes-llava": {
        "kind": "A LLaVA",
        "architecture": "Llava",
        "eyes": "- Vision tower: CLIP's architecture, 4 layers, width 192, 3 heads, patches of 16 pixels on 96x96 "
        "pictures; the class\n  token is dropped, 36 image tokens remain. Projector: 192-576-576. These two are",
        "choices": f"- Image token `{IMAGE_TOKEN}` (id {IMAGE_TOKEN_ID}), a special token that the language model has "
        "no use for.\n- Prompt, without a system message: `<|im_start|>user`, newline, the image, newline,\n"
        f"  `{INSTRUCTION}<|im_end|>`, newline, `<|im_start|>assistant`, newline.",
        "bridge": "projector",
    },
    "scenes-instructblip": {
        "kind": "An InstructBLIP",
        "architecture": "InstructBlip",
        "eyes": "- Vision tower: InstructBLIP's architecture, 4 layers, width 192, 3 heads, patches of 16 pixels on "
        "96x96 pictures.\n  Q-Former: 3 layers, width 192, 3 heads, cross attention in the first and third, 16 "
        "queries, a vocabulary of\n  letters and the words of the instruction. Projection: 192-576. All of these are",
        "choices": "- Image token `<image>`, which the processor adds behind the vocabulary; its row of the embeddings "
        "is their mean.\n- The 16 image tokens stand before the prompt's first token. Prompt, without a system "
        "message: `<|im_start|>user`,\n"
        f"  newline, `{INSTRUCTION}<|im_end|>`, newline, `<|im_start|>assistant`, newline.\n"
        "- The Q-Former reads the instruction without the marks of the turns. The queries were drawn at random:\n"
        "  transformers leaves them zero, and equal queries stay equal.",
        "bridge": "bridge (queries, Q-Former, projection)",
    },
}


def write_card(measured: Measured, trained: Path) -> Path:
    """Write CARD.md beside the trained weights and put the accuracy into training.json; returns the card's path."""
    record_path, card = trained.with_name("training.json"), trained.with_name("CARD.md")
    record: dict[str, Any] = json.loads(record_path.read_text(encoding="utf-8"))
    tally = measured.tally
    record["held_out"] = {
        "samples": measured.samples,
        "seed": measured.seed,
        "shares": {key: round(tally.share(key), 4) for key in sorted(tally.asked)},
        "word_order": {"items": measured.items, **measured.order},
    }
    write_atomically(record_path, (json.dumps(record, indent=1, sort_keys=True) + "\n").encode())
    write_atomically(card, card_text(measured, record, trained).encode())
    return card


def card_text(measured: Measured, record: dict[str, Any], trained: Path) -> str:
    """The text of the card, from what was measured and the training record."""
    tally = measured.tally
    missed = [what for what in BARRED if tally.share(f"{what}/all") < BAR]
    return _TEXT.format(
        requirement=REQUIREMENT,
        model=measured.model,
        **_ABOUT[measured.model],
        parameters=sum(tensor.numel() for tensor in read_trained(trained).values()),
        megabytes=trained.stat().st_size / 1e6,
        sha256=file_sha256(trained),
        pad_token=PAD_TOKEN,
        colours=len(COLOURS),
        shapes=len(SHAPES),
        training=_training(measured.model, record),
        samples=measured.samples,
        seed=measured.seed,
        torch=torch.__version__.split("+")[0],
        transformers=transformers.__version__,
        bar=BAR,
        verdict=f"missed for {', '.join(missed)}" if missed else "reached",
        table=_table(tally),
        items=measured.items,
        **measured.order,
    )


def _training(model: str, record: dict[str, Any]) -> str:
    plan = record["plan"]
    steps = f" --steps-dense {plan['steps_dense']} --steps-caption {plan['steps_caption']}"
    text = (
        f"`python -m harness.lab.training.train --model {model}{steps}`, seed {plan['seed']}, "
        f"{record['seconds'] / 60:.0f} minutes on {record['threads']} CPU threads. "
        f"Stage 0: {plan['steps_dense']} steps of {plan['batch_dense']} pictures, "
        f"tower alone, cross-entropy of colour, shape and size per patch. Stage 1: {plan['steps_caption']} steps of "
        f"{plan['batch_caption']} captions through the frozen language model in bfloat16, plus {plan['dense_share']} "
        f"times the loss of stage 0 on these and {plan['batch_beside']} more "
        f"pictures. The curve is in `training.json`. One seed was trained."
    )
    return "\n\n".join(fill(part, 120) for part in (text, *record.get("notes", [])))


def _table(tally: Tally) -> str:
    lines = ["| | " + " | ".join(_COLUMNS) + " |", "|---" * (len(_COLUMNS) + 1) + "|"]
    for row in _ROWS:
        cells = [f"{tally.share(f'{row}/{c}'):.3f}" if tally.asked.get(f"{row}/{c}") else "" for c in _COLUMNS]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    counts = [str(tally.asked.get(f"colour/{c}", 0)) for c in _COLUMNS]
    return "\n".join([*lines, "| objects | " + " | ".join(counts) + " |"])
