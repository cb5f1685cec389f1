"""Whether the layers that separate the phases, and those where phases happen, are where the baseline has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy import stats

from harness.analysis.agreement import combine_verdicts
from harness.analysis.curves import FloatArray, cluster_means
from harness.analysis.margins import boundary_margins
from harness.analysis.mean_difference import ALPHA_EQUIVALENT, Sides, Verdict, samples_to_decide
from harness.analysis.turning_points import (
    DRAWS,
    best_direction,
    half_heights,
    outer_quantiles,
    resampled_means,
    turning_points_rows,
)


class BoundaryKind(StrEnum):
    """A layer where the curve turns, or the layer where a phase is half done."""

    TURNING_POINT = "turning point"
    HALF_HEIGHT = "half-height"


@dataclass(frozen=True, slots=True)
class BoundaryShift:
    """How far one boundary is from the baseline's.

    `index` counts from 1: turning point j ends phase j, half-height j lies in phase j. `effect` is now minus baseline,
    in layers; `interval` holds for all boundaries together with the agreement's `confidence`, and is NaN where either
    curve has no such layer.
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
    """The verdict on all boundaries of a curve; `decisive` is the shift that reached it.

    `confidence` is that of all intervals together, `n` and `n_baseline` count independent rows.
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
    """Return whether turning points and half-heights are equivalent to the baseline's, differ, or neither is certain.

    Bootstrap of the shift over independent rows, of pairs where the samples are the same. Differs: the interval of
    some shift lies beyond its margin; the interval is at level 1 - alpha_diff / (2 segments - 1), the wider of the
    percentile and the normal one, because so far out 2,000 draws end before the percentiles do. Equivalent: every
    interval at level 95 % lies within the margin, ends included: a turning point moves by whole layers.

    Args:
        sides: the run and its baseline; fewer than 32 paired samples are compared as if they were not paired.
        alpha_diff: probability of a false "differs", all boundaries together.
        segments: number of monotone segments to fit.
        start: direction of the first; 0 takes the baseline's better one.
        margins: in layers, of the turning points, then of the half-heights; by default the baseline's
            `boundary_margins`.

    Raises:
        ValueError: too few points for the segments, or not 2 segments - 1 margins.
    """
    if sides.in_pairs:
        both = cluster_means(np.concatenate([sides.measured, sides.baseline], axis=1), sides.clusters)
        rows_x, rows_y = np.hsplit(both, 2)
    else:
        rows_x = cluster_means(sides.measured, sides.clusters, "the measure")
        rows_y = cluster_means(sides.baseline, sides.baseline_clusters, "its baseline")
    direction = best_direction(rows_y.mean(axis=0), segments, start)
    at_x, drawn_x = _layers(rows_x, 0, segments, direction)
    at_y, drawn_y = _layers(rows_y, 0 if sides.in_pairs else 1, segments, direction)
    if margins is None:
        margins = [margin.value for margin in boundary_margins(rows_y, segments=segments, start=direction)]
    if len(margins) != 2 * segments - 1:
        raise ValueError(
            f"{segments} segments have {2 * segments - 1} boundaries, but there are {len(margins)} margins."
        )
    numbered = [(BoundaryKind.TURNING_POINT, j) for j in range(1, segments)]
    numbered += [(BoundaryKind.HALF_HEIGHT, j) for j in range(1, segments + 1)]
    alpha = alpha_diff / (2 * segments - 1)
    shifts = [
        _shift(number, (float(at_x[i]), float(at_y[i])), drawn_x[:, i] - drawn_y[:, i], margins[i], alpha, len(rows_x))
        for i, number in enumerate(numbered)
    ]
    verdict = combine_verdicts([shift.verdict for shift in shifts])
    deciding = [shift for shift in shifts if shift.verdict is verdict]
    return BoundaryAgreement(
        verdict=verdict,
        paired=sides.in_pairs,
        n=len(rows_x),
        n_baseline=len(rows_y),
        start=direction,
        confidence=1.0 - alpha_diff,
        decisive=max(deciding, key=lambda shift: np.nan_to_num(abs(shift.effect) / shift.margin, nan=np.inf)),
        shifts=tuple(shifts),
    )


def _layers(rows: FloatArray, seed: int, segments: int, start: int) -> tuple[FloatArray, FloatArray]:
    """Turning points, then half-heights: of the mean (2 k - 1,) and of its resamples (draws, 2 k - 1)."""
    means = np.concatenate([rows.mean(axis=0)[None], resampled_means(rows, DRAWS, seed)])
    points = turning_points_rows(means, segments, start)
    layers = np.concatenate([points.astype(np.float64), half_heights(means, points)], axis=1)
    return layers[0], layers[1:]


def _shift(
    number: tuple[BoundaryKind, int],
    at: tuple[float, float],
    drawn: FloatArray,
    margin: float,
    alpha: float,
    n: int,
) -> BoundaryShift:
    """The verdict on one boundary, `at` which layers it is now and in the baseline; `drawn` are resampled shifts."""
    effect = at[0] - at[1]
    kept = drawn[np.isfinite(drawn)]
    if not np.isfinite(effect) or len(kept) < 0.95 * len(drawn):
        unknown = (float("nan"), float("nan"))
        return BoundaryShift(*number, Verdict.INCONCLUSIVE, *at, effect, unknown, margin, None)
    spread = float(kept.std())
    far = float(stats.norm.isf(alpha / 2)) * spread
    low, high = outer_quantiles(kept, alpha / 2)
    low, high = min(low, effect - far), max(high, effect + far)
    near_low, near_high = outer_quantiles(kept, ALPHA_EQUIVALENT)
    needed: int | None = None
    if low > margin or high < -margin:
        verdict = Verdict.DIFFERS
    elif near_low >= -margin and near_high <= margin:
        verdict = Verdict.EQUIVALENT
    else:
        verdict = Verdict.INCONCLUSIVE
        gap = abs(abs(effect) - margin)
        reach = far if abs(effect) > margin else float(stats.norm.isf(ALPHA_EQUIVALENT)) * spread
        # A turning point on a plateau has an interval that shrinks faster, so this is an upper guess.
        needed = samples_to_decide(n, gap, reach)
    return BoundaryShift(*number, verdict, *at, effect, (low, high), margin, needed)
