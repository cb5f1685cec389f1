"""Synthetic curves over depth with known truth: shapes, noise and changes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from harness.analysis.curves import FloatArray
from harness.analysis.power import shift_origin

EDGES = (0, 7, 15, 24, 30)
HEIGHTS = (0.10, 0.45, 0.20, 0.65, 0.40)


@dataclass(frozen=True, slots=True)
class Shape:
    """Piecewise linear phases between `heights` at the layers `edges` of a model with 30 layers."""

    name: str
    edges: tuple[int, ...]
    heights: tuple[float, ...]

    def curve(self, depth: int) -> FloatArray:
        """Return the curve (depth + 1,), with the edges scaled to this depth and rounded to layers."""
        edges = np.round(np.array(self.edges) * depth / self.edges[-1])
        return np.interp(np.arange(depth + 1), edges, self.heights)

    def without_fall(self) -> Shape:
        """Return the shape without the fall of phase II: it stays at its first maximum until it rises to the second."""
        top, bottom = self.heights[1], min(self.heights[1:-1])
        return replace(self, heights=tuple(top if height == bottom else height for height in self.heights))


SHARP = Shape("sharp", EDGES, HEIGHTS)
PLATEAU = Shape("plateau", (0, 5, 9, 13, 17, 22, 26, 30), (0.1, 0.45, 0.45, 0.2, 0.2, 0.65, 0.65, 0.4))
SHALLOW = Shape("shallow", EDGES, (0.10, 0.24, 0.14, 0.32, 0.20))


def layered_noise(rng: np.random.Generator, n: int, points: int, adjacent: float = 0.97) -> FloatArray:
    """Return noise (n, points) of unit variance whose correlation between adjacent layers is `adjacent`."""
    noise = rng.standard_normal((n, points))
    for layer in range(1, points):
        noise[:, layer] = adjacent * noise[:, layer - 1] + np.sqrt(1.0 - adjacent**2) * noise[:, layer]
    return noise


def shift_curve(m: FloatArray, layers: float) -> FloatArray:
    """Return the curve with its interior shifted to later layers and both ends fixed."""
    shifted: FloatArray = np.interp(shift_origin(len(m), layers), np.arange(len(m)), m)
    return shifted


def shift_curves(x: FloatArray, layers: npt.ArrayLike) -> FloatArray:
    """Return curves (n, points), each row shifted by its own number of layers (n,)."""
    return np.stack([shift_curve(row, by) for row, by in zip(x, np.asarray(layers, dtype=np.float64), strict=True)])


def stretch_curves(x: FloatArray, factors: npt.ArrayLike) -> FloatArray:
    """Return curves (n, points), each row stretched about its mean over the layers by one factor or by factors (n,)."""
    centre = x.mean(axis=1, keepdims=True)
    stretched: FloatArray = centre + (x - centre) * np.asarray(factors, dtype=np.float64).reshape(-1, 1)
    return stretched
