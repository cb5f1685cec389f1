"""Turning points, where a curve over depth changes direction, and half-height layers, where each phase happens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.analysis.curves import Clusters, FloatArray, IntArray, as_curves, cluster_means, matrix_product

#: Number of bootstrap resamples.
DRAWS = 2000
#: A layer is part of a plateau if the curve turns there in more than this share of the draws.
_SELDOM = 0.002


def turning_points(m: npt.ArrayLike, segments: int, start: int = 1) -> tuple[int, ...]:
    """Return the layers t_1 < ... < t_{k-1} that split one curve into k alternating monotone segments.

    Args:
        m: (points,), finite.
        segments: number of monotone segments k, at least one.
        start: direction of the first segment: +1 up, -1 down, 0 the direction with the larger total signed rise.

    Raises:
        ValueError: there are fewer than k + 1 points, or `start` is not -1, 0 or 1.
    """
    row = as_curves(np.asarray(m, dtype=np.float64)[None], "the curve")
    return tuple(int(t) for t in turning_points_rows(row, segments, best_direction(row[0], segments, start))[0])


def turning_points_rows(m: FloatArray, segments: int, start: int = 1) -> IntArray:
    """Return the turning points (rows, segments - 1) of every row of `m` (rows, points).

    Segment j runs from t_{j-1} to t_j with t_0 = 0 and t_k = L. Every segment has a layer of its own, so
    1 <= t_1 < ... < t_{k-1} <= L - 1. The total signed rise is sum_j s_j (m[t_j] - m[t_{j-1}]) with s_j = -s_{j-1}. It
    equals 2 sum_{j<k} s_j m[t_j] - s_1 m[0] + s_k m[L], whose end terms are constant for a given start. A dynamic
    program with a running maximum finds the best interior points in O(k points). Ties take the earliest layers.

    Raises:
        ValueError: as in `turning_points`.
    """
    if segments < 1 or m.shape[1] < segments + 1:
        raise ValueError(
            f"{segments} segments need at least {max(segments, 1) + 1} points, the curve has {m.shape[1]}."
        )
    if start not in (-1, 1):
        raise ValueError(f"start must be +1 (up), -1 (down) or 0 (the better of both), not {start}.")
    rows, points = m.shape
    layers = np.arange(points)
    score = np.where(layers == 0, -np.inf, start * m)
    origins: list[IntArray] = []
    for j in range(2, segments):
        best = np.maximum.accumulate(score, axis=1)
        reach = np.concatenate([np.full((rows, 1), -np.inf), best[:, :-1]], axis=1)
        origin = np.maximum.accumulate(np.where(score > reach, layers, 0), axis=1)
        # A segment ends after the previous segment, so it starts from the best state up to the layer before.
        origins.append(np.concatenate([np.zeros((rows, 1), dtype=np.int64), origin[:, :-1]], axis=1))
        score = reach + start * (-1) ** (j + 1) * m
    turns = np.zeros((rows, segments - 1), dtype=np.int64)
    if segments > 1:
        turns[:, -1] = np.argmax(score[:, :-1], axis=1)
    for j in range(segments - 2, 0, -1):
        turns[:, j - 1] = np.take_along_axis(origins[j - 1], turns[:, j : j + 1], axis=1)[:, 0]
    return turns


def signed_rise(m: FloatArray, boundaries: IntArray, start: int) -> FloatArray:
    """Return the total signed rise (rows,) of the segments of `m` (rows, points) between `boundaries` (rows, k-1)."""
    ends = np.take_along_axis(m, _with_ends(boundaries, m.shape[1]), axis=1)
    signs = start * (-1.0) ** np.arange(ends.shape[1] - 1)
    return np.asarray((np.diff(ends, axis=1) * signs).sum(axis=1), dtype=np.float64)


def half_heights(m: npt.ArrayLike, boundaries: npt.ArrayLike, values: FloatArray | None = None) -> FloatArray:
    """Return the interpolated layer at which each phase first reaches the middle of its two end values.

    The first crossing from the phase's start counts; between layers the curve is linear. A phase whose end values are
    equal or not finite has no half-height: NaN.

    Args:
        m: (points,) or (rows, points).
        boundaries: turning points, (k-1,) or (rows, k-1), with as many dimensions as `m`.
        values: values at the ends of the phases, (rows, k + 1); by default those of the curve.

    Returns:
        (k,) or (rows, k), in layers.
    """
    curves, cuts = np.atleast_2d(np.asarray(m, dtype=np.float64)), np.atleast_2d(np.asarray(boundaries, dtype=np.int64))
    edges = _with_ends(cuts, curves.shape[1])
    ends = np.take_along_axis(curves, edges, axis=1) if values is None else values
    layers = np.arange(curves.shape[1])
    heights = np.full((len(curves), edges.shape[1] - 1), np.nan)
    for j in range(heights.shape[1]):
        first, last = edges[:, j : j + 1], edges[:, j + 1 : j + 2]
        low, high = ends[:, j : j + 1], ends[:, j + 1 : j + 2]
        above = (curves - (low + high) / 2) * np.sign(high - low)
        with np.errstate(invalid="ignore"):
            reached = np.argmax((layers > first) & (layers <= last) & (above >= 0.0), axis=1)[:, None]
        after = np.take_along_axis(above, reached, axis=1)
        before = np.take_along_axis(above, np.maximum(reached - 1, 0), axis=1)
        valid = np.isfinite(high - low) & (high != low) & np.isfinite(after - before) & (after > before)
        step = np.where(valid, after - before, 1.0)
        heights[:, j] = np.where(valid, reached - after / step, np.nan)[:, 0]
    return heights if np.ndim(m) > 1 else heights[0]


def _with_ends(boundaries: IntArray, points: int) -> IntArray:
    first = np.zeros(len(boundaries), dtype=np.int64)
    return np.column_stack([first, boundaries, first + points - 1])


@dataclass(frozen=True, slots=True)
class BoundaryInterval:
    """A layer with the ends of its interval; all three are NaN if the phase has no such layer."""

    estimate: float
    low: float
    high: float

    def __format__(self, form: str) -> str:
        """Return the estimate formatted as `form`, with its interval unless that is a single layer: '27 [21-27]'."""
        if self.low == self.high:
            return f"{self.estimate:{form}}"
        return f"{self.estimate:{form}} [{self.low:{form}}-{self.high:{form}}]"


@dataclass(frozen=True, slots=True)
class Boundaries:
    """The turning points (k-1) and half-heights (k) of a mean curve with percentile intervals at `level`.

    `start` is the direction of the first segment, `n` the number of independent rows.
    """

    start: int
    turning_points: tuple[BoundaryInterval, ...]
    half_heights: tuple[BoundaryInterval, ...]
    level: float
    n: int


def boundary_intervals(
    x: npt.ArrayLike,
    clusters: Clusters | None = None,
    segments: int = 4,
    start: int = 1,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> Boundaries:
    """Return turning points and half-heights of the mean of curves (samples, points) with percentile intervals.

    Clusters are resampled (each cluster's mean curve is one row). The direction of the first segment is selected once,
    on the mean curve. An integer estimate need not lie in the middle of its interval.

    On a plateau the curve turns wherever the noise is highest. Its value there is too high, so the half-height comes
    out too late. The interval of a half-height is therefore widened to include a second interval, computed with the
    means over all layers in which the draws turn. If the draws turn in one layer, nothing changes.

    Raises:
        ValueError: as in `cluster_means` and `turning_points`.
    """
    rows = cluster_means(x, clusters)
    mean, means = rows.mean(axis=0), resampled_means(rows, draws, seed)
    direction = best_direction(mean, segments, start)
    estimate = turning_points_rows(mean[None], segments, direction)
    drawn = turning_points_rows(means, segments, direction)
    at_turns = percentile_intervals(half_heights(mean, estimate[0]), half_heights(means, drawn), level)
    on_plateaus = percentile_intervals(*_plateau_heights(mean, means, estimate, drawn), level)
    return Boundaries(
        start=direction,
        turning_points=percentile_intervals(estimate[0].astype(np.float64), drawn.astype(np.float64), level),
        half_heights=tuple(map(_spanning, at_turns, on_plateaus)),
        level=level,
        n=len(rows),
    )


def resampled_means(rows: FloatArray, draws: int, seed: int) -> FloatArray:
    """Return the means (draws, points) of bootstrap resamples of independent `rows` (n, points)."""
    n = len(rows)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1.0 / n), size=draws)
    return matrix_product(weights.astype(np.float64), rows) / n


def best_direction(m: FloatArray, segments: int, start: int) -> int:
    """Return `start`, or if it is 0 the direction of the first segment that fits `m` (points,) better.

    Ties take the upward direction.
    """
    if start != 0:
        return start
    row = m[None]
    rise = [float(signed_rise(row, turning_points_rows(row, segments, s), s)[0]) for s in (1, -1)]
    return 1 if rise[0] >= rise[1] else -1


def _plateau_heights(
    mean: FloatArray, draws: FloatArray, estimate: IntArray, drawn: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Return half-heights of the mean (k,) and the draws (draws, k), from the means over the layers of each turn."""
    points = len(mean)
    counts = [np.bincount(column, minlength=points) for column in drawn.T]
    turns = np.array(counts).reshape(-1, points) > _SELDOM * len(drawn)
    ends = np.eye(points, dtype=bool)
    layers = np.concatenate([ends[:1], turns, ends[-1:]]).astype(np.float64)
    layers /= layers.sum(axis=1, keepdims=True)
    curves, cuts = np.concatenate([mean[None], draws]), np.concatenate([estimate, drawn])
    heights = half_heights(curves, cuts, matrix_product(curves, layers.T))
    return heights[0], heights[1:]


def _spanning(interval: BoundaryInterval, other: BoundaryInterval) -> BoundaryInterval:
    """Return the interval, widened to include another interval of the same layer; NaN ends are ignored."""
    low, high = np.fmin(interval.low, other.low), np.fmax(interval.high, other.high)
    return BoundaryInterval(interval.estimate, float(low), float(high)) if np.isfinite(interval.low) else interval


def percentile_intervals(estimate: FloatArray, drawn: FloatArray, level: float) -> tuple[BoundaryInterval, ...]:
    """Return layers `estimate` (k,) with the percentile intervals at `level` of their draws (draws, k).

    NaN stands for a layer that does not exist. If the estimate or more than 5 % of its draws are NaN, so is the result.
    """
    tail = (1.0 - level) / 2
    intervals = []
    for value, column in zip(estimate, drawn.T, strict=True):
        finite = column[np.isfinite(column)]
        if not np.isfinite(value) or len(finite) < 0.95 * len(column):
            intervals.append(BoundaryInterval(float("nan"), float("nan"), float("nan")))
            continue
        intervals.append(BoundaryInterval(float(value), *outer_quantiles(finite, tail)))
    return tuple(intervals)


def outer_quantiles(values: FloatArray, tail: float) -> tuple[float, float]:
    """Return the order statistics of `values` (draws,) beyond which a share `tail` lies on either side.

    The ends of the interval of an integer are integers.
    """
    return float(np.quantile(values, tail, method="lower")), float(np.quantile(values, 1.0 - tail, method="higher"))
