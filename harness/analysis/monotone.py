"""Whether a curve keeps its direction within an interval of layers, and whether a phase is there at all."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy import stats

from harness.analysis.curves import Clusters, CurveSummary, as_curves, summarise
from harness.analysis.moves import Rises
from harness.analysis.simultaneous import simultaneous_bound

ALPHA_VIOLATED, ALPHA_MONOTONE, ALPHA_PRESENT = 0.01, 0.025, 0.01


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


@dataclass(frozen=True, slots=True)
class MonotoneFinding:
    """The reversal that decided: between the two `layers`, of mean size `effect`, positive against `direction`.

    `interval` runs from the lower bound that holds for all pairs of layers at once to this pair's one-sided upper
    bound. `n` counts independent rows.
    """

    verdict: Monotonicity
    layers: tuple[int, int]
    effect: float
    interval: tuple[float, float]
    margin: float
    n: int


def monotone(
    summary: CurveSummary,
    first: int,
    last: int,
    direction: int,
    margin: float,
    *,
    alpha_violated: float = ALPHA_VIOLATED,
    alpha_monotone: float = ALPHA_MONOTONE,
) -> MonotoneFinding:
    """Returns whether the mean of a summary is monotone from layer `first` to layer `last`.

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
        alpha_violated: family-wise error of "violated".
        alpha_monotone: error of "monotone".

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
    rises = Rises.of(inside)
    drop = -direction * rises.rise
    critical = simultaneous_bound(
        inside.covariance, inside.df, alpha_violated, pairs=(rises.first, rises.last), two_sided=False
    )
    lower = drop - critical * rises.standard_error
    upper = drop + float(stats.t.isf(alpha_monotone, inside.df)) * rises.standard_error
    violated = bool((lower > margin).any())
    verdict = Monotonicity.INCONCLUSIVE
    if violated:
        verdict = Monotonicity.VIOLATED
    elif (upper < margin).all():
        verdict = Monotonicity.MONOTONE
    at = int(np.argmax(lower if violated else upper))
    return MonotoneFinding(
        verdict=verdict,
        layers=(first + int(rises.first[at]), first + int(rises.last[at])),
        effect=float(drop[at]),
        interval=(float(lower[at]), float(upper[at])),
        margin=margin,
        n=summary.n,
    )


@dataclass(frozen=True, slots=True)
class PhaseFinding:
    """The rise of a phase in its direction: `effect` with `interval`, judged against `margin`, from `n` rows."""

    verdict: Presence
    effect: float
    interval: tuple[float, float]
    margin: float
    n: int


def phase_rise(
    x: npt.ArrayLike,
    first: int,
    last: int,
    direction: int,
    prominence: float,
    clusters: Clusters | None = None,
    alpha: float = ALPHA_PRESENT,
    critical: float | None = None,
) -> PhaseFinding:
    """Returns whether the mean of curves (samples, points) rises (falls) by more than `prominence` over an interval.

    Present where the lower end of the rise's interval exceeds `prominence`, absent where the upper end lies below it.

    Args:
        x: (samples, points).
        first: layer where the phase begins.
        last: layer where it ends.
        direction: +1 for a rise, -1 for a fall.
        prominence: in units of the curve.
        clusters: one label per sample.
        alpha: two-sided error of the interval.
        critical: half the interval in standard errors, instead of Student's quantile: `BoundedRises.critical` where the
            layers were chosen on the same curves.

    Raises:
        ValueError: as `summarise`, layers that are no interval of the curve, or a direction other than +1 and -1.
    """
    curves = as_curves(x)
    _check_interval(first, last, direction, curves.shape[1])
    summary = summarise(curves[:, [first, last]], clusters)
    rise = direction * float(summary.mean[1] - summary.mean[0])
    error = float(Rises.of(summary).standard_error[0])
    width = error * (float(stats.t.isf(alpha / 2, summary.df)) if critical is None else critical)
    verdict = Presence.INCONCLUSIVE
    if rise - width > prominence:
        verdict = Presence.PRESENT
    elif rise + width < prominence:
        verdict = Presence.ABSENT
    return PhaseFinding(
        verdict=verdict,
        effect=rise,
        interval=(rise - width, rise + width),
        margin=prominence,
        n=summary.n,
    )


def _check_interval(first: int, last: int, direction: int, points: int) -> None:
    if not 0 <= first < last < points:
        raise ValueError(f"layers {first} to {last} are no interval of a curve with {points} points.")
    if direction not in (-1, 1):
        raise ValueError(f"a direction is +1 (rising) or -1 (falling), not {direction}.")
