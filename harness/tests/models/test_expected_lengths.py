"""Expected prompt lengths from image sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from harness.data.sample import DataError
from harness.models.prompts.processor_call import expected_lengths
from harness.models.vlm import Vlm
from harness.tests.support.tiny import SIDE, tiny_samples


class SizedProcessor:
    """A processor with one image token per hundred pixels. It predicts that number if `predicts` is true."""

    def __init__(self, tokenizer: Any, *, predicts: bool) -> None:
        self.tokenizer, self._predicts = tokenizer, predicts

    def _get_num_multimodal_tokens(self, image_sizes: Sequence[Sequence[int]]) -> dict[str, list[int]]:
        if not self._predicts:
            raise NotImplementedError
        return {"num_image_tokens": [height * width // 100 for height, width in image_sizes]}


@pytest.mark.parametrize("predicts", [True, False])
def test_larger_images_have_longer_expected_prompts(vlm: Vlm, predicts: bool) -> None:
    sizes = [(100, 300), (100, 100), (200, 200)]
    samples = [
        replace(sample, load_image=lambda size=size: Image.new("RGB", size), instruction="what is in the picture?")
        for sample, size in zip(tiny_samples(3), sizes, strict=True)
    ]
    lengths = expected_lengths(SizedProcessor(vlm.processor.tokenizer, predicts=predicts), samples)
    assert [length - min(lengths) for length in lengths] == ([200, 0, 300] if predicts else [0, 0, 0])


def test_an_unavailable_image_has_the_expected_length_of_the_others(vlm: Vlm) -> None:
    def fail_to_load() -> Image.Image:
        raise DataError("photo.jpg is broken or truncated")

    samples = [replace(sample, instruction="what is in the picture?") for sample in tiny_samples(3)]
    samples[1] = replace(samples[1], load_image=fail_to_load)
    first, broken, last = expected_lengths(SizedProcessor(vlm.processor.tokenizer, predicts=True), samples)
    assert first == last == broken - 448 * 448 // 100 + SIDE * SIDE // 100


def test_a_processor_with_one_resolution_loads_no_image(vlm: Vlm) -> None:
    def refuse_to_load() -> Image.Image:
        raise AssertionError("decoded for nothing")

    samples = [replace(sample, load_image=refuse_to_load) for sample in tiny_samples(3)]
    assert len(set(expected_lengths(vlm.processor, samples))) == 3
