"""Likelihoods of captions, compared with a token-by-token definition, and the scores of item pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import PaliGemmaConfig

from harness.data.datasets import DATASETS
from harness.data.sample import Dataset, Sample
from harness.measurement.measure import measure
from harness.measurement.word_order import word_order_scores
from harness.models.anatomy import find_anatomy
from harness.models.likelihood import caption_likelihoods
from harness.models.prompts.chat import PromptError, prompt_text
from harness.models.prompts.prompt import encode
from harness.models.vlm import Vlm
from harness.tests.support.processors import FAMILIES, make_processor
from harness.tests.support.tiny import tiny_samples
from harness.tests.support.topology import REDUCED, random_model

CAPTIONS = ["a red circle above a blue square", "a green star"]


def reference_likelihood(vlm: Vlm, sample: Sample, caption: str) -> float:
    """Return the summed log-probability of the caption's tokens and the end of text, one token at a time."""
    batch = encode(vlm.processor, [sample], vlm.anatomy.image_positions)
    prompt = prompt_text(vlm.processor, sample.instruction)
    before = vlm.processor.tokenizer(prompt).input_ids
    tokens = vlm.processor.tokenizer(f"{prompt} {caption}").input_ids[len(before) :]
    ids, total = batch.inputs["input_ids"], 0.0
    for token in [*tokens, vlm.processor.tokenizer.eos_token_id]:
        logits = vlm.model(input_ids=ids, pixel_values=batch.inputs["pixel_values"], use_cache=False).logits[0, -1]
        total += float(logits.double().log_softmax(0)[token])
        ids = torch.cat([ids, torch.tensor([[token]])], 1)
    return total


@torch.inference_mode()
def test_likelihoods_are_sums_over_the_tokens_of_the_caption(vlm: Vlm, samples: list[Sample]) -> None:
    """Prompts and captions differ in length, so the batch is padded on both sides."""
    scores = caption_likelihoods(vlm, samples[:2], CAPTIONS)
    for sample, caption, score in zip(samples, CAPTIONS, scores, strict=False):
        assert score == pytest.approx(reference_likelihood(vlm, sample, caption), rel=1e-4)


def make_items(samples: list[Sample]) -> list[Sample]:
    """Return the samples, of which every two are the sides of an item."""
    return [
        Sample(s.id, s.load_image, s.instruction, (CAPTIONS[k % 2],), f"item {k // 2}") for k, s in enumerate(samples)
    ]


def test_a_paired_dataset_gets_the_scores(vlm: Vlm, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = make_items(tiny_samples(5))
    monkeypatch.setitem(DATASETS, "items", Dataset("items", "items", lambda n, *_: drawn[:n], paired=True))
    profile = measure(vlm, "items", samples=5, batch_size=3, controls=(), progress=False)
    likelihoods, backward = profile["likelihood_own"], profile["likelihood_other"]
    np.testing.assert_allclose(likelihoods[:2], caption_likelihoods(vlm, drawn[:2], CAPTIONS), rtol=1e-5)
    np.testing.assert_allclose(backward[:2], caption_likelihoods(vlm, drawn[:2], CAPTIONS[::-1]), rtol=1e-5)
    assert np.isnan([likelihoods[4], backward[4]]).all()
    assert "after the prompt" in profile.declared["likelihood"]
    scores = word_order_scores(profile)
    text_correct = [
        likelihoods[2 * k] > backward[2 * k] and likelihoods[2 * k + 1] > backward[2 * k + 1] for k in range(2)
    ]
    assert scores["text"].share == np.mean(text_correct)
    assert scores["group"].items == 2
    assert scores["group"].low <= scores["group"].share <= scores["group"].high
    assert "likelihood_own" not in measure(vlm, "items", samples=4, controls=(), word_order=False).arrays


def test_a_batch_of_items_that_exceeds_memory_is_halved(fresh_vlm: Vlm, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = make_items(tiny_samples(4))
    monkeypatch.setitem(DATASETS, "items", Dataset("items", "items", lambda n, *_: drawn[:n], paired=True))
    options = {"samples": 4, "batch_size": 2, "controls": (), "progress": False}
    full, lines = measure(fresh_vlm, "items", **options), list[str]()

    def run_out(_: Any, args: tuple[torch.Tensor, ...]) -> None:
        if len(args[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    fresh_vlm.anatomy.layers[1].register_forward_pre_hook(run_out)
    halved = measure(fresh_vlm, "items", say=lines.append, **options)
    assert lines == ["tiny-llava: out of memory with batches of 4 samples, continuing with 2"]
    for name in ("likelihood_own", "likelihood_other"):
        np.testing.assert_allclose(halved[name], full[name], rtol=1e-5)


def test_a_pair_without_items_has_no_scores(vlm: Vlm, tiny_data: None) -> None:
    assert word_order_scores(measure(vlm, "tiny", samples=2, controls=(), progress=False)) == {}


# Some processors pass PIL images to numpy in a deprecated way.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("kind", ["paligemma", "another"])
def test_a_prompt_that_attends_to_its_caption_is_refused(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """In PaliGemma, tokens of type 0 attend to each other. Without token types, prompts attend to the caption."""
    family = FAMILIES["paligemma"]
    processor = make_processor(family)
    text = {"vocab_size": len(processor.tokenizer), "num_hidden_layers": 3, "head_dim": 16, "num_key_value_heads": 2}
    config = PaliGemmaConfig(
        text_config={"model_type": "gemma", **REDUCED.sizes(), **text},
        vision_config={**REDUCED.sizes(), "num_hidden_layers": 1, "image_size": 56, "patch_size": 14},
        image_token_index=processor.tokenizer.convert_tokens_to_ids(family.feature),
        projection_dim=64,
    )
    model = random_model(config)
    monkeypatch.setattr(type(config), "model_type", kind)
    vlm = Vlm("seeing", model, processor, find_anatomy(model))
    item = [tiny_samples(1)[0]] * 2
    if kind == "paligemma":
        forward, backward = (
            caption_likelihoods(vlm, item, CAPTIONS),
            caption_likelihoods(vlm, item, CAPTIONS[::-1]),
        )
        np.testing.assert_allclose(forward, backward[::-1], rtol=1e-5)
    else:
        with pytest.raises(
            PromptError, match=r"seeing: .* the prompt attends to the caption and its likelihood is undefined"
        ):
            caption_likelihoods(vlm, item, CAPTIONS)
