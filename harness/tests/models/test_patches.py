"""The plotted image is the vision tower's input. A map is overlaid only if image tokens have positions in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from harness.data.sample import Sample
from harness.models.patches import LONGEST_SIDE, InputImage, input_image
from harness.models.prompts.prompt import encode
from harness.models.vlm import Vlm
from harness.tests.support.tiny import PATCH, SIDE, tiny_samples, tiny_vlm
from harness.tests.support.topology import random_instructblip, random_llava, random_photographs


def get_input_image(vlm: Vlm, samples: list[Sample], row: int) -> InputImage:
    batch = encode(vlm.processor, samples, vlm.anatomy.image_positions)
    tokens = int(batch.groups.image[row].sum())
    return input_image(vlm, batch.inputs, row, len(samples), samples[row].load_image, tokens)


def test_an_image_of_the_right_size_is_returned_pixel_by_pixel(vlm: Vlm) -> None:
    samples = tiny_samples(3)
    for row, sample in enumerate(samples):
        image = get_input_image(vlm, samples, row)
        assert np.abs(image.pixels.astype(int) - np.asarray(sample.load_image()).astype(int)).max() <= 1
        assert image.grid == (SIDE // PATCH, SIDE // PATCH)


def test_a_token_of_the_grid_is_at_its_patch(vlm: Vlm) -> None:
    # A change in one patch changes the patch embedding of one token; the grid must locate that token.
    tower = vlm.model.model.vision_tower
    embedding = next(module for name, module in tower.named_modules() if name.endswith("patch_embedding"))
    pixels = torch.zeros(1, 3, SIDE, SIDE)
    rows, columns = get_input_image(vlm, tiny_samples(1), 0).grid or (0, 0)
    for row in range(rows):
        for column in range(columns):
            changed = pixels.clone()
            changed[:, :, row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] = 1.0
            changed_tokens = (
                (embedding(changed) - embedding(pixels)).abs().amax((0, 1)).flatten().nonzero().flatten().tolist()
            )
            assert changed_tokens == [row * columns + column]


def test_llava_crops_and_its_576_tokens_are_24_rows_of_24() -> None:
    vlm, samples = random_llava(), random_photographs(2)
    image = get_input_image(vlm, samples, 0)
    assert image.grid == (24, 24)
    assert image.pixels.shape == (336, 336, 3)
    # A landscape image is cropped at its sides, so the middle is shown.
    full = np.asarray(samples[0].load_image().resize((448, 336), Image.Resampling.BICUBIC))[:, 56:392]
    assert np.abs(image.pixels.astype(int) - full.astype(int)).mean() < 2.0


def test_query_tokens_have_no_position_in_the_image() -> None:
    image = get_input_image(random_instructblip(), random_photographs(2), 1)
    assert image.grid is None
    assert "learnt queries" in image.reason
    assert image.pixels.shape == (224, 224, 3)


def test_packed_patches_give_their_grid_by_rows_and_columns(vlm: Vlm) -> None:
    # As from Qwen's processors: 8 x 12 patches of two images in one tensor, 2 x 2 patches merged to a token.
    photo = Image.new("RGB", (600, 400), "navy")
    inputs = {"pixel_values": torch.zeros(192, 1176), "image_grid_thw": torch.tensor([[1, 8, 12], [1, 12, 8]])}
    landscape, portrait = (input_image(vlm, inputs, row, 2, lambda: photo, 24) for row in range(2))
    assert (landscape.grid, portrait.grid) == ((4, 6), (6, 4))
    assert max(landscape.pixels.shape) == LONGEST_SIDE
    assert input_image(vlm, inputs, 0, 2, lambda: photo, 23).grid is None


def test_tiles_have_no_grid_and_the_full_image_is_shown(vlm: Vlm) -> None:
    photo = Image.new("L", (300, 100), 128)
    image = input_image(vlm, {"pixel_values": torch.zeros(1, 5, 3, 32, 32)}, 0, 1, lambda: photo, 80)
    assert image.grid is None
    assert "several tiles" in image.reason
    assert image.pixels.shape == (100, 300, 3)
    assert (image.pixels == 128).all()


@pytest.mark.parametrize("patch_size", [None, 0, (8, 4), "8", 7, [8, 8]])
def test_a_deviating_configuration_is_no_error(vlm: Vlm, patch_size: Any) -> None:
    model = tiny_vlm()
    config = model.model.config.vision_config
    object.__setattr__(config, "patch_size", patch_size)
    image = get_input_image(model, tiny_samples(2), 0)
    assert image.grid == ((4, 4) if patch_size == [8, 8] else None)
    assert image.reason or image.grid


def test_tokens_that_pool_squares_of_patches_form_a_grid(vlm: Vlm) -> None:
    samples = tiny_samples(1)
    batch = encode(vlm.processor, samples, vlm.anatomy.image_positions)
    # 4 x 4 patches: pooling by two gives 2 x 2 tokens, by four 1 token; 5 tokens form no grid.
    for tokens, grid in ((16, (4, 4)), (4, (2, 2)), (1, (1, 1)), (5, None), (8, None), (0, None)):
        assert input_image(vlm, batch.inputs, 0, 1, samples[0].load_image, tokens).grid == grid
