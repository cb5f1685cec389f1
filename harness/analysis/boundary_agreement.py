"""Comparison of a run's turning points and half-height layers with those of its baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from harness.analysis.agreement import combine_verdicts
from harness.analysis.curves import FloatArray, cluster_means
from harness.analysis.margins import boundary_margins
from harness.analysis.mean_difference import ALPHA_EQUIVALENT, Sides, Verdict, samples_to_decide
from harness.analysis.quantiles import normal_upper
from harness.analysis.turning_points import (
    DRAWS,
    best_direction,
    half_heights,
    outer_quantiles,
    resampled_means,
    turning_points_rows,
)


class BoundaryKind(StrEnum):
    """Kind of boundary: where the curve turns, or where a phase reaches half of its change."""

    TURNING_POINT = "turning point"
    HALF_HEIGHT = "half-height"


@dataclass(frozen=True, slots=True)
class BoundaryShift:
    """The reach of one boundary from the baseline's.

    `index` counts from 1: turning point j ends phase j, half-height j lies in phase j. `effect` is measured minus
    baseline, in layers. `interval` holds for all boundaries together with the agreement's `confidence`; it is NaN if
    either curve has no such layer.
    """

    kind: BoundaryKind
    index: int
    verdict: Verdict
    measured: float
    baseline: float
    effect: float
    interval: tuple[float, float]
    margin: float
    n_needed: int | None


@dataclass(frozen=True, slots=True)
class BoundaryAgreement:
    """The verdict on all boundaries of a curve; `decisive` is the shift that determined it.

    `confidence` applies to all intervals together. `n` and `n_baseline` count independent rows.
    """

    verdict: Verdict
    paired: bool
    n: int
    n_baseline: int
    start: int
    confidence: float
    decisive: BoundaryShift
    shifts: tuple[BoundaryShift, ...]


def judge_boundaries(
    sides: Sides,
    *,
    alpha_diff: float,
    segments: int = 4,
    start: int = 1,
    margins: Sequence[float] | None = None,
) -> BoundaryAgreement:
    """Return the verdict on turning points and half-heights: equivalent to the baseline's, different or inconclusive.

    The shift of each boundary is bootstrapped over independent rows, or over pairs if the samples are the same.

    Differs: the interval of some shift lies entirely beyond its margin. Its level is 1 - alpha_diff / (2 segments - 1).
    It is the wider of the percentile and the normal interval, because 2,000 draws are too few for percentiles so far
    in the tail. Equivalent: every 95 % interval lies within its margin, ends included because a turning point shifts
    by whole layers.

    Args:
        sides: the run and its baseline; fewer than 32 paired samples are compared as unpaired.
        alpha_diff: probability of a false "differs" over all boundaries together.
        segments: number of monotone segments to fit.
        start: direction of the first segment; 0 selects the direction that fits the baseline better.
        margins: margins in layers, turning points first, then half-heights. Default: `boundary_margins` of the
            baseline.

    Raises:
        ValueError: there are too few points for the segments, or the number of margins is not 2 segments - 1.
    """
    if sides.in_pairs:
        joined_rows = cluster_means(np.concatenate([sides.measured, sides.baseline], axis=1), sides.clusters)
        measured_rows, baseline_rows = np.hsplit(joined_rows, 2)
    else:
        measured_rows = cluster_means(sides.measured, sides.clusters, "the measure")
        baseline_rows = cluster_means(sides.baseline, sides.baseline_clusters, "its baseline")
    direction = best_direction(baseline_rows.mean(axis=0), segments, start)
    measured_layers, measured_draws = _layers(measured_rows, 0, segments, direction)
    baseline_layers, baseline_draws = _layers(baseline_rows, 0 if sides.in_pairs else 1, segments, direction)
    if margins is None:
        margins = [margin.value for margin in boundary_margins(baseline_rows, segments=segments, start=direction)]
    if len(margins) != 2 * segments - 1:
        raise ValueError(
            f"{segments} segments have {2 * segments - 1} boundaries, but there are {len(margins)} margins."
        )
    numbered = [(BoundaryKind.TURNING_POINT, j) for j in range(1, segments)]
    numbered += [(BoundaryKind.HALF_HEIGHT, j) for j in range(1, segments + 1)]
    alpha = alpha_diff / (2 * segments - 1)
    shifts = [
        _shift(
            number,
            (float(measured_layers[i]), float(baseline_layers[i])),
            measured_draws[:, i] - baseline_draws[:, i],
            margins[i],
            alpha,
            len(measured_rows),
        )
        for i, number in enumerate(numbered)
    ]
    verdict = combine_verdicts([shift.verdict for shift in shifts])
    deciding = [shift for shift in shifts if shift.verdict is verdict]
    return BoundaryAgreement(
        verdict=verdict,
        paired=sides.in_pairs,
        n=len(measured_rows),
        n_baseline=len(baseline_rows),
        start=direction,
        confidence=1.0 - alpha_diff,
        decisive=max(deciding, key=lambda shift: np.nan_to_num(abs(shift.effect) / shift.margin, nan=np.inf)),
        shifts=tuple(shifts),
    )


def _layers(rows: FloatArray, seed: int, segments: int, start: int) -> tuple[FloatArray, FloatArray]:
    """Return turning points, then half-heights, of the mean (2 k - 1,) and of its resamples (draws, 2 k - 1)."""
    means = np.concatenate([rows.mean(axis=0)[None], resampled_means(rows, DRAWS, seed)])
    points = turning_points_rows(means, segments, start)
    layers = np.concatenate([points.astype(np.float64), half_heights(means, points)], axis=1)
    return layers[0], layers[1:]


def _shift(
    number: tuple[BoundaryKind, int],
    layers: tuple[float, float],
    draws: FloatArray,
    margin: float,
    alpha: float,
    n: int,
) -> BoundaryShift:
    """Return the verdict on one boundary.

    Args:
        number: kind and index of the boundary.
        layers: its layer in the run and in the baseline.
        draws: bootstrapped shifts, (draws,).
        margin: in layers.
        alpha: error of "differs".
        n: number of independent rows.
    """
    effect = layers[0] - layers[1]
    finite = draws[np.isfinite(draws)]
    if not np.isfinite(effect) or len(finite) < 0.95 * len(draws):
        unknown = (float("nan"), float("nan"))
        return BoundaryShift(*number, Verdict.INCONCLUSIVE, *layers, effect, unknown, margin, None)
    spread = float(finite.std())
    half_width = normal_upper(alpha / 2) * spread
    low, high = outer_quantiles(finite, alpha / 2)
    low, high = min(low, effect - half_width), max(high, effect + half_width)
    near_low, near_high = outer_quantiles(finite, ALPHA_EQUIVALENT)
    needed: int | None = None
    if low > margin or high < -margin:
        verdict = Verdict.DIFFERS
    elif near_low >= -margin and near_high <= margin:
        verdict = Verdict.EQUIVALENT
    else:
        verdict = Verdict.INCONCLUSIVE
        gap = abs(abs(effect) - margin)
        reach = half_width if abs(effect) > margin else normal_upper(ALPHA_EQUIVALENT) * spread
        # The interval of a turning point on a plateau shrinks faster, so this estimate is an upper bound.
        needed = samples_to_decide(n, gap, reach)
    return BoundaryShift(*number, verdict, *layers, effect, (low, high), margin, needed)
