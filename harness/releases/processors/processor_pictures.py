"""Pictures and instructions that every processor reads; drawn by code, equal on every machine."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

SHORT = "Describe the image."
LONG = (
    "Compare what is left of the door with what is right of it, count the 3 red bicycles and the 12 birds, and say in "
    "at most two sentences whether the café's sign (“Zum Löwen”) can be read from the street; if it cannot, answer no."
)
#: Width and height in pixels. `tiny` is smaller than a patch.
SIZES: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"square": (240, 240), "wide": (330, 120), "tall": (90, 260), "tiny": (9, 7)}
)
#: By case id: the names of the pictures, and the instruction.
CASES: Mapping[str, tuple[tuple[str, ...], str]] = MappingProxyType(
    {f"{name}-short": ((name,), SHORT) for name in SIZES}
    | {"square-long": (("square",), LONG), "two-short": (("square", "wide"), SHORT)}
)


def draw_picture(name: str) -> Image:
    """Return one of the pictures of `SIZES`: gradients, sharp edges, thin lines and noise, in RGB.

    Edges, lines and noise make another resampling filter visible; different colours make another channel order visible.
    """
    from PIL import Image

    width, height = SIZES[name]
    generator = np.random.default_rng(width * 1000 + height)
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([255 * columns / width, 255 * rows / height, 128 + 0 * rows], axis=-1)
    pixels[(rows // 5 + columns // 7) % 4 == 0] = (250, 20, 60)
    pixels[(rows - columns) % 23 == 0] = (10, 10, 240)
    pixels[height // 3 : height // 2, width // 4 : width // 2] = (255, 255, 255)
    pixels += generator.normal(0, 12, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
