"""Tests of phases: monotonicity within an interval of layers, and presence of a rise."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from harness.analysis.curves import CurveSummary, FloatArray
from harness.analysis.quantiles import student_upper
from harness.analysis.segments import Rises, single_rise
from harness.analysis.simultaneous import simultaneous_bound

ALPHA_VIOLATED, ALPHA_MONOTONE, ALPHA_PRESENT = 0.01, 0.025, 0.01
REVERSAL_SHARE, MIN_REVERSAL = 0.05, 0.01


class Monotonicity(StrEnum):
    """Result of the monotonicity test, which allows reversals of a declared size."""

    MONOTONE = "monotone"
    VIOLATED = "violated"
    INCONCLUSIVE = "inconclusive"


class Presence(StrEnum):
    """Result of the test for a rise of a declared size."""

    PRESENT = "present"
    ABSENT = "absent"
    INCONCLUSIVE = "inconclusive"


Answer = Presence | Monotonicity


@dataclass(frozen=True, slots=True)
class PhaseFinding:
    """The answer to one question about a phase: `effect` between two `layers` with `interval`, against `margin`.

    For presence, the effect is the rise in the phase's direction. For monotonicity it is the decisive reversal,
    positive against the direction; its interval runs from the lower bound that holds for all pairs of layers at once
    to this pair's one-sided upper bound. `n` counts independent rows.
    """

    verdict: Answer
    layers: tuple[int, int]
    effect: float
    interval: tuple[float, float]
    margin: float
    n: int


def reversal_margin(m: FloatArray) -> float:
    """Return the largest acceptable reversal of a mean curve: 5 % of the curve's range, at least 0.01."""
    return max(MIN_REVERSAL, REVERSAL_SHARE * float(m.max() - m.min()))


def judge_monotonicity(
    summary: CurveSummary,
    first: int,
    last: int,
    direction: int,
    margin: float,
    alphas: tuple[float, float] = (ALPHA_VIOLATED, ALPHA_MONOTONE),
) -> PhaseFinding:
    """Test if the mean of a summary is monotone from layer `first` to layer `last`.

    The drop from s to t is -(m[t] - m[s]) x direction, over all first <= s < t <= last. The curve is monotone up to
    `margin` if the one-sided upper bound of every drop lies below it. All must, so no correction is needed. It is
    violated if the simultaneous lower bound of some drop exceeds it, else inconclusive. Trend tests cannot replace
    this: on a curve with a clear dip they still confirm the rise.

    Args:
        summary: summary of the curves.
        first: first layer of the interval.
        last: last layer of the interval, included.
        direction: +1 rising, -1 falling.
        margin: largest acceptable reversal, in units of the curve.
        alphas: family-wise error of "violated", and error of "monotone".

    Raises:
        ValueError: the layers are not an interval of the curve, the direction is not +1 or -1, or the margin is not
            positive.
    """
    _check_interval(first, last, direction, summary.points)
    if not margin > 0.0:
        raise ValueError(f"the margin of a reversal must be positive, but is {margin}.")
    inside = CurveSummary(
        summary.mean[first : last + 1], summary.covariance[first : last + 1, first : last + 1], summary.n
    )
    rises = Rises.from_summary(inside)
    drop = -direction * rises.rise
    critical = simultaneous_bound(
        inside.covariance, inside.df, alphas[0], pairs=(rises.first, rises.last), two_sided=False
    )
    lower = drop - critical * rises.standard_error
    upper = drop + student_upper(alphas[1], inside.df) * rises.standard_error
    violated = bool((lower > margin).any())
    verdict = Monotonicity.INCONCLUSIVE
    if violated:
        verdict = Monotonicity.VIOLATED
    elif (upper < margin).all():
        verdict = Monotonicity.MONOTONE
    index = int(np.argmax(lower if violated else upper))
    layers = (first + int(rises.first[index]), first + int(rises.last[index]))
    return PhaseFinding(
        verdict, layers, float(drop[index]), (float(lower[index]), float(upper[index])), margin, summary.n
    )


def judge_phase_rise(
    rows: FloatArray,
    first: int,
    last: int,
    direction: int,
    prominence: float,
    alpha: float = ALPHA_PRESENT,
    critical: float | None = None,
) -> PhaseFinding:
    """Test if the mean of independent rows rises (or falls) by more than `prominence` over an interval.

    Args:
        rows: (n, points).
        first: first layer of the phase.
        last: last layer of the phase.
        direction: +1 for a rise, -1 for a fall.
        prominence: in units of the curve.
        alpha: two-sided error of the interval.
        critical: half the interval in standard errors, instead of Student's quantile; `BoundedRises.critical` if the
            layers were selected on the same curves.

    Raises:
        ValueError: as in `summarise`, or the layers are not an interval, or the direction is not +1 or -1.
    """
    _check_interval(first, last, direction, rows.shape[1])
    rise, width, n = single_rise(rows, first, last, alpha, critical)
    rise *= direction
    return judge_presence((first, last), rise, (rise - width, rise + width), prominence, n)


def judge_presence(
    layers: tuple[int, int], rise: float, interval: tuple[float, float], prominence: float, n: int
) -> PhaseFinding:
    """Return "present" if the interval of a rise lies above `prominence`, "absent" if it lies below."""
    verdict = Presence.INCONCLUSIVE
    if interval[0] > prominence:
        verdict = Presence.PRESENT
    elif interval[1] < prominence:
        verdict = Presence.ABSENT
    return PhaseFinding(verdict, layers, rise, interval, prominence, n)


def _check_interval(first: int, last: int, direction: int, points: int) -> None:
    if not 0 <= first < last < points:
        raise ValueError(f"layers {first} to {last} are not an interval of a curve with {points} points.")
    if direction not in (-1, 1):
        raise ValueError(f"a direction is +1 (rising) or -1 (falling), not {direction}.")
