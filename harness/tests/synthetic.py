"""Synthetic curves over depth with known truth, so that the statistics are tested without any model."""

from __future__ import annotations

import numpy as np

from harness.analysis.curves import FloatArray

POINTS = 31
EDGES = (0, 7, 15, 24, 30)
HEIGHTS = (0.10, 0.45, 0.20, 0.65, 0.40)


def phases(edges: tuple[int, ...] = EDGES, heights: tuple[float, ...] = HEIGHTS) -> FloatArray:
    """Returns a curve (edges[-1] + 1,) of straight moves between the heights at the edges."""
    return np.interp(np.arange(edges[-1] + 1), edges, heights)


def plateaus() -> FloatArray:
    """Returns the four phases with flat tops and bottoms."""
    return np.interp(np.arange(POINTS), (0, 5, 9, 13, 17, 22, 26, 30), (0.1, 0.45, 0.45, 0.2, 0.2, 0.65, 0.65, 0.4))


def samples(mean: FloatArray, n: int, seed: int, sd: float = 0.08, adjacent: float = 0.97) -> FloatArray:
    """Returns curves (n, points) around `mean`, with a spread `sd` that is correlated from layer to layer."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((n, len(mean)))
    for layer in range(1, len(mean)):
        noise[:, layer] = adjacent * noise[:, layer - 1] + np.sqrt(1.0 - adjacent**2) * noise[:, layer]
    return mean + sd * noise


def rerun(x: FloatArray, seed: int, sd: float = 3e-3) -> FloatArray:
    """Returns the same samples measured again in a coarser data type: independent noise of size `sd`."""
    return x + sd * np.random.default_rng(seed).standard_normal(x.shape)


def shifted(m: FloatArray, layers: float) -> FloatArray:
    """Returns the curve with its inside moved to later layers and its two ends kept."""
    at = np.arange(len(m), dtype=np.float64)
    last = at[-1]
    return np.interp(np.interp(at, (0.0, layers + 1.0, last - 1.0, last), (0.0, 1.0, last - 1.0 - layers, last)), at, m)


def recalls(n: int, seed: int, words: int = 8) -> FloatArray:
    """Returns LogitLens recall (n, POINTS): zero up to layer 22, rising to 0.7, in steps of one word."""
    chance = np.interp(np.arange(POINTS), (0, 22, 30), (0.0, 0.0, 0.7))
    return np.random.default_rng(seed).binomial(words, chance, size=(n, POINTS)) / words
