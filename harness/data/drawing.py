"""Rendering of scenes with Pillow: shapes on a plain background, at twice the final size."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

SUPERSAMPLING = 2
RGB = tuple[int, int, int]


def ground(size: tuple[int, int], rgb: RGB) -> Image.Image:
    """Return an evenly coloured, supersampled canvas for an image of `size` (width, height) pixels."""
    width, height = size
    return Image.new("RGB", (width * SUPERSAMPLING, height * SUPERSAMPLING), rgb)


def draw_shape(canvas: Image.Image, shape: str, x: float, y: float, radius: float, rgb: RGB) -> None:
    """Paint one shape on the canvas; centre and radius are in pixels of the final image.

    Raises:
        KeyError: the shape is unknown.
    """
    pen = ImageDraw.Draw(canvas)
    cx, cy, r = (v * SUPERSAMPLING for v in (x, y, radius))
    if shape == "circle":
        pen.ellipse((cx - r, cy - r, cx + r, cy + r), fill=rgb)
    elif shape == "ring":
        pen.ellipse((cx - r, cy - r, cx + r, cy + r), outline=rgb, width=round(0.36 * r))
    else:
        pen.polygon([(cx + r * u, cy + r * v) for u, v in _OUTLINES[shape]], fill=rgb)


def finish(canvas: Image.Image, noise: np.ndarray) -> Image.Image:
    """Return the canvas reduced to the shape of `noise` (height, width, 3), plus the noise (in levels of 0 to 255)."""
    reduced = np.asarray(canvas.reduce(SUPERSAMPLING), dtype=np.float64)
    if reduced.shape != noise.shape:
        raise ValueError(f"the canvas reduces to {reduced.shape}, expected {noise.shape}")
    return Image.fromarray(np.clip(reduced + noise, 0, 255).round().astype(np.uint8))


def _regular(corners: int, inner: float | None = None) -> list[tuple[float, float]]:
    """Return corners on the unit circle from the top, with corners at radius `inner` between them if given."""
    radii = [1.0] if inner is None else [1.0, inner]
    total = corners * len(radii)
    angles = [2 * math.pi * k / total for k in range(total)]
    return [(radii[k % len(radii)] * math.sin(a), -radii[k % len(radii)] * math.cos(a)) for k, a in enumerate(angles)]


def _heart(points: int = 48) -> list[tuple[float, float]]:
    turns = [2 * math.pi * k / points for k in range(points)]
    return [
        (
            math.sin(t) ** 3,
            -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16 - 0.1,
        )
        for t in turns
    ]


_ARM = 0.34
_OUTLINES: dict[str, list[tuple[float, float]]] = {
    "square": [(-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)],
    "triangle": [(0.0, -1.0), (1.0, 0.85), (-1.0, 0.85)],
    "star": _regular(5, inner=0.42),
    "diamond": [(0.0, -1.0), (0.72, 0.0), (0.0, 1.0), (-0.72, 0.0)],
    "cross": [
        *[(-_ARM, -1.0), (_ARM, -1.0), (_ARM, -_ARM), (1.0, -_ARM), (1.0, _ARM), (_ARM, _ARM)],
        *[(_ARM, 1.0), (-_ARM, 1.0), (-_ARM, _ARM), (-1.0, _ARM), (-1.0, -_ARM), (-_ARM, -_ARM)],
    ],
    "heart": _heart(),
}
