"""The image that a vision tower receives and the grid of its image tokens, for maps plotted over images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from harness.models.prompts.hashes import IMAGE_DIMENSIONS
from harness.models.vlm import Vlm

#: Pixels of the longer side of a stored image, enough for a map over it.
LONGEST_SIDE = 448
# Configuration keys of models whose image tokens are learnt queries, each of which attends to the complete image.
_QUERIES = ("num_query_tokens", "qformer_config", "perceiver_config", "query_length", "resampler_n_latents")
_CHANNELS = 3


@dataclass(frozen=True, slots=True)
class InputImage:
    """An image as the vision tower receives it.

    `pixels` are uint8 (height, width, 3). `grid` is the number of rows and columns of image tokens that tile it, left
    to right and top to bottom. It is None if they form no grid; `reason` then states why.
    """

    pixels: NDArray[np.uint8]
    grid: tuple[int, int] | None
    reason: str = ""


def input_image(
    vlm: Vlm, inputs: Mapping[str, Any], row: int, rows: int, original: Callable[[], Image.Image], tokens: int
) -> InputImage:
    """Return the image of one row of a batch as the model receives it, with the grid of its image tokens if any.

    Args:
        vlm: the model.
        inputs: the model inputs of the batch.
        row: the index of the row in the batch.
        rows: the number of rows of the batch.
        original: returns the image that the processor received; called only if the inputs hold it in tiles or patches.
        tokens: the number of image tokens of the row.
    """
    values = inputs.get("pixel_values")
    if not isinstance(values, torch.Tensor) or values.ndim != IMAGE_DIMENSIONS or values.shape[:2] != (rows, _CHANNELS):
        thumbnail = np.array(_small(original().convert("RGB")))
        grids = inputs.get("image_grid_thw")
        if isinstance(grids, torch.Tensor) and len(grids) == rows and int(grids[row][0]) == 1:
            height, width = (int(side) for side in grids[row][1:])
            if grid := _merged(height, width, tokens):
                return InputImage(thumbnail, grid)
        return InputImage(thumbnail, None, "its image tokens come from several tiles or have no known grid")
    pixels = _pixels(vlm, values[row])
    height, width = pixels.shape[:2]
    thumbnail = np.array(_small(Image.fromarray(pixels)))
    if any(getattr(vlm.model.config, name, None) for name in _QUERIES):
        return InputImage(
            thumbnail, None, "its image tokens are learnt queries, each of which attends to the whole image"
        )
    for patch in _patches(vlm.model.config):
        if height % patch == 0 and width % patch == 0 and (grid := _merged(height // patch, width // patch, tokens)):
            return InputImage(thumbnail, grid)
    return InputImage(thumbnail, None, f"its {tokens} image tokens form no grid of the vision tower's patches")


def _merged(rows: int, columns: int, tokens: int) -> tuple[int, int] | None:
    """Return the grid after square groups of patches merge into one token each; None if no square fits the count."""
    side = isqrt(rows * columns // tokens) if tokens else 0
    if side < 1 or rows % side or columns % side or (rows // side) * (columns // side) != tokens:
        return None
    return rows // side, columns // side


def _patches(config: Any) -> Iterator[int]:
    for name in ("vision_config", "vision_tower_config"):
        patch = getattr(getattr(config, name, None), "patch_size", None)
        sides = {patch} if isinstance(patch, int) else set(patch) if isinstance(patch, tuple | list) else set()
        if len(sides) == 1 and isinstance(side := sides.pop(), int) and side > 0:
            yield side


def _pixels(vlm: Vlm, values: torch.Tensor) -> NDArray[np.uint8]:
    """Return the pixels (height, width, 3) of a processed image, with the normalisation undone."""
    numbers = values.detach().float().cpu().numpy().transpose(1, 2, 0)
    image_processor = getattr(vlm.processor, "image_processor", None)
    if getattr(image_processor, "do_normalize", True):
        numbers = numbers * _channels(image_processor, "image_std", 1.0) + _channels(image_processor, "image_mean", 0.0)
    return np.asarray(np.clip(np.nan_to_num(numbers), 0.0, 1.0) * 255.0 + 0.5, dtype=np.uint8)


def _channels(image_processor: Any, name: str, default: float) -> NDArray[np.float32]:
    values = np.asarray(getattr(image_processor, name, None) or default, dtype=np.float32)
    return np.broadcast_to(values if values.size in (1, _CHANNELS) else np.float32(default), (_CHANNELS,))


def _small(image: Image.Image) -> Image.Image:
    if max(image.size) > LONGEST_SIDE:
        image = image.copy()
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return image
