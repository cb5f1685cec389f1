"""Whether a curve keeps its direction within an interval of layers, and whether a phase is there at all."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy import stats

from harness.analysis.curves import CurveSummary, FloatArray
from harness.analysis.segments import Rises, single_rise
from harness.analysis.simultaneous import simultaneous_bound

ALPHA_VIOLATED, ALPHA_MONOTONE, ALPHA_PRESENT = 0.01, 0.025, 0.01
REVERSAL_SHARE, MIN_REVERSAL = 0.05, 0.01


class Monotonicity(StrEnum):
    """Whether a curve goes one way, up to reversals of a declared size."""

    MONOTONE = "monotone"
    VIOLATED = "violated"
    INCONCLUSIVE = "inconclusive"


class Presence(StrEnum):
    """Whether a rise of a declared size is there."""

    PRESENT = "present"
    ABSENT = "absent"
    INCONCLUSIVE = "inconclusive"


Answer = Presence | Monotonicity


@dataclass(frozen=True, slots=True)
class PhaseFinding:
    """The answer to one question about a phase: `effect` between two `layers` with `interval`, against `margin`.

    Of its presence the effect is the rise in its direction; of its monotonicity the reversal that decided, positive
    against the direction, with an interval from the lower bound that holds for all pairs of layers at once to this
    pair's one-sided upper bound. `n` counts independent rows.
    """

    verdict: Answer
    layers: tuple[int, int]
    effect: float
    interval: tuple[float, float]
    margin: float
    n: int


def reversal_margin(m: FloatArray) -> float:
    """Return the largest reversal of a mean curve that does not count: 5 % of the curve's range, at least 0.01."""
    return max(MIN_REVERSAL, REVERSAL_SHARE * float(m.max() - m.min()))


def judge_monotonicity(
    summary: CurveSummary,
    first: int,
    last: int,
    direction: int,
    margin: float,
    alphas: tuple[float, float] = (ALPHA_VIOLATED, ALPHA_MONOTONE),
) -> PhaseFinding:
    """Return whether the mean of a summary is monotone from layer `first` to layer `last`.

    The drop from s to t is -(m[t] - m[s]) x direction, over all first <= s < t <= last. Monotone up to `margin` where
    the one-sided upper bound of every drop lies below it (all must, so no correction is due); violated where the
    simultaneous lower bound of some drop exceeds it; else inconclusive. Tests of trend cannot say this: on a curve
    with a clear dip they confirm the rise.

    Args:
        summary: of the curves.
        first: layer where the interval begins.
        last: layer where it ends, both included.
        direction: +1 rising, -1 falling.
        margin: largest reversal that does not count, in units of the curve.
        alphas: family-wise error of "violated", and error of "monotone".

    Raises:
        ValueError: layers that are no interval of the curve, a direction other than +1 and -1, or a margin that is not
            positive.
    """
    _check_interval(first, last, direction, summary.points)
    if not margin > 0.0:
        raise ValueError(f"the margin of a reversal must be positive, this one is {margin}.")
    inside = CurveSummary(
        summary.mean[first : last + 1], summary.covariance[first : last + 1, first : last + 1], summary.n
    )
    rises = Rises.from_summary(inside)
    drop = -direction * rises.rise
    critical = simultaneous_bound(
        inside.covariance, inside.df, alphas[0], pairs=(rises.first, rises.last), two_sided=False
    )
    lower = drop - critical * rises.standard_error
    upper = drop + float(stats.t.isf(alphas[1], inside.df)) * rises.standard_error
    violated = bool((lower > margin).any())
    verdict = Monotonicity.INCONCLUSIVE
    if violated:
        verdict = Monotonicity.VIOLATED
    elif (upper < margin).all():
        verdict = Monotonicity.MONOTONE
    at = int(np.argmax(lower if violated else upper))
    layers = (first + int(rises.first[at]), first + int(rises.last[at]))
    return PhaseFinding(verdict, layers, float(drop[at]), (float(lower[at]), float(upper[at])), margin, summary.n)


def judge_phase_rise(
    rows: FloatArray,
    first: int,
    last: int,
    direction: int,
    prominence: float,
    alpha: float = ALPHA_PRESENT,
    critical: float | None = None,
) -> PhaseFinding:
    """Return whether the mean of independent rows rises (falls) by more than `prominence` over an interval.

    Args:
        rows: (n, points).
        first: layer where the phase begins.
        last: layer where it ends.
        direction: +1 for a rise, -1 for a fall.
        prominence: in units of the curve.
        alpha: two-sided error of the interval.
        critical: half the interval in standard errors, instead of Student's quantile: `BoundedRises.critical` where the
            layers were chosen on the same curves.

    Raises:
        ValueError: as `summarise`, layers that are no interval of the curve, or a direction other than +1 and -1.
    """
    _check_interval(first, last, direction, rows.shape[1])
    rise, width, n = single_rise(rows, first, last, alpha, critical)
    rise *= direction
    return judge_presence((first, last), rise, (rise - width, rise + width), prominence, n)


def judge_presence(
    layers: tuple[int, int], rise: float, interval: tuple[float, float], prominence: float, n: int
) -> PhaseFinding:
    """Return "present" where the interval of a rise lies above `prominence`, "absent" where it lies below."""
    verdict = Presence.INCONCLUSIVE
    if interval[0] > prominence:
        verdict = Presence.PRESENT
    elif interval[1] < prominence:
        verdict = Presence.ABSENT
    return PhaseFinding(verdict, layers, rise, interval, prominence, n)


def _check_interval(first: int, last: int, direction: int, points: int) -> None:
    if not 0 <= first < last < points:
        raise ValueError(f"layers {first} to {last} are no interval of a curve with {points} points.")
    if direction not in (-1, 1):
        raise ValueError(f"a direction is +1 (rising) or -1 (falling), not {direction}.")
