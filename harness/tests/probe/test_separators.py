"""Separators, learned vectors between image features such as row ends, count as neither image nor text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import CLIPVisionConfig, LlamaConfig, LlavaNextConfig, LlavaNextForConditionalGeneration

from harness.baselines.store import MUST_MATCH
from harness.data.datasets import DATASETS
from harness.data.sample import Dataset, Sample
from harness.models.anatomy import find_anatomy
from harness.models.prompts.prompt import Batch, encode
from harness.models.vlm import Vlm
from harness.probe.separators import SEPARATOR_POLICY, exclude_separators, find_separators
from harness.releases.tiny.tiny_model import draw_weights
from harness.tests.support.processors import FAMILIES, make_processor
from harness.tests.support.tiny import tiny_profile, tiny_samples

SIDE, PATCH = 56, 14


@pytest.fixture
def tiled() -> Vlm:
    """A tiny LLaVA-NeXT, which adds a learned vector after each row of features."""
    processor = make_processor(FAMILIES["llava_next"])
    processor.num_additional_image_tokens = 1
    pinpoints = [[SIDE, SIDE], [SIDE, 2 * SIDE], [2 * SIDE, SIDE]]
    processor.image_processor.image_grid_pinpoints = pinpoints
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=SIDE,
            patch_size=PATCH,
        ),
        text_config=LlamaConfig(
            vocab_size=len(processor.tokenizer),
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=4,
            num_attention_heads=2,
            num_key_value_heads=2,
        ),
        image_token_index=processor.tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=pinpoints,
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
    )
    model = LlavaNextForConditionalGeneration(config)
    draw_weights(model)
    model.requires_grad_(False).eval()
    return Vlm("tiny-tiled", model, processor, find_anatomy(model))


def samples_with_images(n: int, *_: object) -> list[Sample]:
    """Return samples with wide and tall noise images, and one image of a single colour."""
    sizes = [(2 * SIDE, SIDE), (SIDE, 2 * SIDE), (60, 57)]

    def image_loader(index: int) -> Any:
        width, height = sizes[index % 3]
        pixels = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(index))
        return lambda: Image.fromarray(pixels.to(torch.uint8).numpy())

    samples = [
        Sample(sample.id, image_loader(index), sample.instruction, sample.captions, sample.cluster)
        for index, sample in enumerate(tiny_samples(n))
    ]
    plain = samples[-1]
    samples[-1] = Sample(
        plain.id, lambda: Image.new("RGB", (SIDE, SIDE), "white"), plain.instruction, plain.captions, plain.cluster
    )
    return samples


def newlines(vlm: Vlm, batch: Batch) -> torch.Tensor:
    """Return the positions of the model's newline vector in residual point 0."""
    states: list[torch.Tensor] = []
    handle = vlm.anatomy.layers[0].register_forward_pre_hook(lambda _, args: states.append(args[0]))
    with torch.inference_mode():
        vlm.model(**vlm.to_device(batch.inputs))
    handle.remove()
    return (states[0] == vlm.model.model.image_newline).all(-1)


def test_row_ends_are_neither_image_nor_text(tiled: Vlm) -> None:
    for sample in samples_with_images(4):
        encoded = encode(tiled.processor, [sample], tiled.anatomy.image_positions)
        batch = exclude_separators(tiled, encoded)
        ends = newlines(tiled, encoded)
        assert int(ends.sum()) > 1
        assert torch.equal(batch.groups.image, encoded.groups.image & ~ends)
        assert torch.equal(batch.groups.other, encoded.groups.other | ends)
        assert not (batch.groups.text & ends).any()
        assert torch.equal(batch.groups.text, encoded.groups.text)


@pytest.mark.parametrize("colour", ["white", "black"])
def test_a_tile_whose_pixels_are_whole_numbers_has_image_features(tiled: Vlm, colour: str) -> None:
    tiled.processor.image_processor.image_mean = tiled.processor.image_processor.image_std = [0.5] * 3
    sample = samples_with_images(2)[0]
    image = sample.load_image()
    image.paste(colour, (SIDE, 0, 2 * SIDE, SIDE))
    encoded = encode(tiled.processor, [replace(sample, load_image=lambda: image)], tiled.anatomy.image_positions)
    batch = exclude_separators(tiled, encoded)
    assert torch.equal(batch.groups.image, encoded.groups.image & ~newlines(tiled, encoded))


def test_a_profile_declares_separators(tiled: Vlm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(DATASETS, "tiny", Dataset("tiny", "tiny", samples_with_images))
    profile = tiny_profile(tiled, controls=("noise", "blank"), cache=tmp_path)
    assert profile.declared["image_tokens"] == SEPARATOR_POLICY
    assert "image_tokens" in MUST_MATCH
    for drawing, sample in zip(profile.drawings, samples_with_images(6), strict=False):
        encoded = encode(tiled.processor, [sample], tiled.anatomy.image_positions)
        features = int(encoded.groups.image.sum()) - int(newlines(tiled, encoded).sum())
        assert len(drawing.image_tokens[0]) == int(drawing.groups["image"].sum()) == features


@pytest.mark.usefixtures("tiny_data")
def test_a_model_without_separators_is_tested_once_and_declares_nothing(fresh_vlm: Vlm) -> None:
    nan_pixels: list[bool] = []

    def record(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nan_pixels.append(bool((args[0] if args else kwargs["pixel_values"]).isnan().any()))

    fresh_vlm.model.model.vision_tower.register_forward_pre_hook(record, with_kwargs=True)
    profile = tiny_profile(fresh_vlm, samples=6, batch_size=2)
    assert "image_tokens" not in profile.declared
    # The first pass has real pixels, so that a user's hooks receive the image before the pass with NaN.
    assert nan_pixels == [False, True, False, *[False] * 3]


def test_no_separators_are_reported_if_the_model_rejects_nan_pixels(vlm: Vlm, samples: list[Sample]) -> None:
    batch = encode(vlm.processor, samples, vlm.anatomy.image_positions)
    inputs = {**vlm.to_device(batch.inputs), "unknown": torch.ones(1)}
    assert not find_separators(vlm.model, vlm.anatomy, inputs, batch.groups.image).any()


def test_the_search_for_separators_removes_its_hooks(tiled: Vlm) -> None:
    batch = encode(tiled.processor, samples_with_images(2), tiled.anatomy.image_positions)
    exclude_separators(tiled, batch)
    assert not any(module._forward_pre_hooks for module in tiled.model.modules())
