"""Synthetic curves with known truth, for tests of the statistics without a model."""

from __future__ import annotations

import numpy as np

from harness.analysis.curves import FloatArray
from harness.lab.simulation.synthetic import EDGES, HEIGHTS, PLATEAU, layered_noise

POINTS = 31


def phase_curve(edges: tuple[int, ...] = EDGES, heights: tuple[float, ...] = HEIGHTS) -> FloatArray:
    """Return a curve (edges[-1] + 1,) with straight segments between the heights at the edges."""
    return np.interp(np.arange(edges[-1] + 1), edges, heights)


def plateau_curve() -> FloatArray:
    """Return the four phases with flat tops and bottoms."""
    return PLATEAU.curve(POINTS - 1)


def draw_curves(mean: FloatArray, n: int, seed: int, sd: float = 0.08, adjacent: float = 0.97) -> FloatArray:
    """Return curves (n, points) around `mean`, with noise of size `sd` that is correlated between layers."""
    return mean + sd * layered_noise(np.random.default_rng(seed), n, len(mean), adjacent)


def add_rerun_noise(x: FloatArray, seed: int, sd: float = 3e-3) -> FloatArray:
    """Return the same samples with independent noise of size `sd`, as from a coarser data type."""
    return x + sd * np.random.default_rng(seed).standard_normal(x.shape)


def draw_recalls(n: int, seed: int, words: int = 8) -> FloatArray:
    """Return LogitLens recall (n, POINTS): zero up to layer 22, rising to 0.7, in steps of one word."""
    chance = np.interp(np.arange(POINTS), (0, 22, 30), (0.0, 0.0, 0.7))
    return np.random.default_rng(seed).binomial(words, chance, size=(n, POINTS)) / words
