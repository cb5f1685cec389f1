"""What a vision tower is shown of a picture, and where in it the image tokens lie: for maps that lie over pictures."""

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

#: Pixels of the longer side that are kept of a picture: more than a map over it can show.
LONGEST_SIDE = 448
# What a configuration has whose image tokens are learnt queries: each of them has seen the whole picture.
_QUERIES = ("num_query_tokens", "qformer_config", "perceiver_config", "query_length", "resampler_n_latents")
_CHANNELS = 3


@dataclass(frozen=True, slots=True)
class InputImage:
    """A picture as the vision tower is shown it.

    `pixels` are uint8 (height, width, 3). `grid` is the number of rows and columns of image tokens that tile it, left
    to right and top to bottom; None where they do not, and then `why` says so.
    """

    pixels: NDArray[np.uint8]
    grid: tuple[int, int] | None
    why: str = ""


def input_image(
    vlm: Vlm, inputs: Mapping[str, Any], row: int, rows: int, picture: Callable[[], Image.Image], tokens: int
) -> InputImage:
    """The picture of one row of a batch as the model sees it, with the grid of its image tokens where they have one.

    Args:
        vlm: the model.
        inputs: the model inputs of the batch.
        row: which row of the batch.
        rows: how many rows the batch has.
        picture: gives the picture that was given to the processor; called only where the inputs do not hold it whole.
        tokens: how many image tokens the row has.
    """
    values = inputs.get("pixel_values")
    if not isinstance(values, torch.Tensor) or values.ndim != IMAGE_DIMENSIONS or values.shape[:2] != (rows, _CHANNELS):
        shown = np.array(_small(picture().convert("RGB")))
        sections = inputs.get("image_grid_thw")
        if isinstance(sections, torch.Tensor) and len(sections) == rows and int(sections[row][0]) == 1:
            height, width = (int(side) for side in sections[row][1:])
            if grid := _merged(height, width, tokens):
                return InputImage(shown, grid)
        return InputImage(shown, None, "its image tokens come from several tiles, or lie in no grid that is known")
    pixels = _pixels(vlm, values[row])
    height, width = pixels.shape[:2]
    shown = np.array(_small(Image.fromarray(pixels)))
    if any(getattr(vlm.model.config, name, None) for name in _QUERIES):
        return InputImage(shown, None, "its image tokens are learnt queries, and each has seen the whole picture")
    for patch in _patches(vlm.model.config):
        if height % patch == 0 and width % patch == 0 and (grid := _merged(height // patch, width // patch, tokens)):
            return InputImage(shown, grid)
    return InputImage(shown, None, f"its {tokens} image tokens are no grid of the vision tower's patches")


def _merged(rows: int, columns: int, tokens: int) -> tuple[int, int] | None:
    """The grid that is left when squares of patches become one token each; None where none gives so many tokens."""
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
    """Pixels (height, width, 3) of what a processor made of a picture, its normalisation taken back."""
    numbers = values.detach().float().cpu().numpy().transpose(1, 2, 0)
    images = getattr(vlm.processor, "image_processor", None)
    if getattr(images, "do_normalize", True):
        numbers = numbers * _channels(images, "image_std", 1.0) + _channels(images, "image_mean", 0.0)
    return np.asarray(np.clip(np.nan_to_num(numbers), 0.0, 1.0) * 255.0 + 0.5, dtype=np.uint8)


def _channels(images: Any, name: str, default: float) -> NDArray[np.float32]:
    given = np.asarray(getattr(images, name, None) or default, dtype=np.float32)
    return np.broadcast_to(given if given.size in (1, _CHANNELS) else np.float32(default), (_CHANNELS,))


def _small(picture: Image.Image) -> Image.Image:
    if max(picture.size) > LONGEST_SIDE:
        picture = picture.copy()
        picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return picture
