"""Whether what held in each phase of the baseline still holds: that the phase is there, and that it goes one way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy import stats

from harness.analysis.agreement import ALPHA_EQUIVALENT, combined
from harness.analysis.claims import LEAST_REVERSAL, REVERSAL_SHARE
from harness.analysis.curves import Clusters, CurveSummary, FloatArray, as_curves, summarise
from harness.analysis.margins import LEAST_PAIRS
from harness.analysis.mean_difference import MeanDifference, Verdict, View
from harness.analysis.monotone import ALPHA_PRESENT, Monotonicity, Presence, monotone
from harness.analysis.moves import BoundedRises, Rises, bounded_rises, declared_prominence
from harness.analysis.simultaneous import simultaneous_bound
from harness.analysis.turning_points import best_start, turning_points

#: How far measuring again moves a layer's mean, until a calibration says otherwise.
DECLARED_NOISE = 1e-3


class Question(StrEnum):
    """What is asked of a phase: is its rise there, and is the curve monotone over it?"""

    PRESENCE = "presence"
    MONOTONICITY = "monotonicity"


Answer = Presence | Monotonicity


@dataclass(frozen=True, slots=True)
class IntervalFinding:
    """One question about one phase, asked of the baseline and of the measure.

    `phase` counts from 1, `first` and `last` are the baseline's layers, `direction` is the phase's. `effect` is the
    rise in that direction, or the largest reversal, between `layers`, with `interval`, judged against `margin`;
    `before` is the baseline's. `change` is now minus baseline of one quantity: the rise, or the reversal between the
    layers where the baseline, else this run, has it; `change_interval` holds for all pairs of layers at once with the
    agreement's `confidence`. `verdict` is None where the baseline left the question open. `n_needed` is about how many
    samples would decide, None where the verdict is not inconclusive or nobody can say.
    """

    phase: int
    question: Question
    first: int
    last: int
    direction: int
    verdict: Verdict | None
    then: Answer
    now: Answer
    layers: tuple[int, int]
    before: float
    effect: float
    interval: tuple[float, float]
    margin: float
    change: float
    change_interval: tuple[float, float]
    n: int
    n_needed: int | None


@dataclass(frozen=True, slots=True)
class IntervalAgreement:
    """The verdict on all phases of a curve: that of the worst of the `findings` that the baseline was certain of.

    Inconclusive where it was certain of none. `confidence` is that of the changes, all questions together; `n` and
    `n_baseline` count independent rows.
    """

    verdict: Verdict
    paired: bool
    n: int
    n_baseline: int
    confidence: float
    noise: float
    findings: tuple[IntervalFinding, ...]


def agree_intervals(
    now: npt.ArrayLike,
    baseline: npt.ArrayLike,
    *,
    paired: bool,
    alpha_diff: float,
    reference: npt.ArrayLike | None = None,
    noise: float = DECLARED_NOISE,
    moves: int = 4,
    start: int = 1,
    alpha_eq: float = ALPHA_EQUIVALENT,
    clusters: Clusters | None = None,
    baseline_clusters: Clusters | None = None,
) -> IntervalAgreement:
    """Returns whether each phase of the baseline is as present and as monotone, over the baseline's layers, as it was.

    Two questions a phase: does its rise exceed the prominence (present or absent), does a reversal inside it exceed the
    margin (monotone or violated)? Both are those of the claims, with their errors: a phase is chosen for its rise, so
    its bounds hold for all pairs of layers at once. What the baseline is certain of is judged.

    Differs: the opposite is certain now, each question at `alpha_diff` / (2 moves), **and** the quantity has certainly
    changed by more than 2 `noise`, all pairs of layers together at `alpha_diff`. The answer alone would not do. Near
    its margin a quantity is certain one way with the claims' error and, where this run is the larger, certain the other
    way almost always. The change knows no margin: where nothing changed it is false with `alpha_diff` at most, wherever
    the quantity lies. And as certainty is cheap with many samples, what measuring again may do to the means of the two
    layers of a rise is no change.

    Equivalent: the same answer is certain now, or every change certainly lies within 2 `noise`, so that an answer that
    just fails to be certain again is no doubt. Inconclusive: neither.

    Args:
        now: (samples, points).
        baseline: (samples, points); the rows those of `now` where `paired`.
        paired: as in `agree`; fewer than 32 rows are compared as if they were not.
        alpha_diff: probability of a false "differs", all questions together.
        reference: mean curve (points,) that sets phases, prominence and margin; by default that of `baseline`.
        noise: largest change of a layer's mean between measurements of the same samples.
        moves: number of phases.
        start: direction of the first; 0 takes the reference's better one.
        alpha_eq: one-sided error of a change within the noise.
        clusters: labels of the samples that are not independent; of `baseline` too, where `paired`.
        baseline_clusters: of the baseline's samples, where not `paired`.

    Raises:
        ValueError: arrays of unequal shape, not finite, fewer than two independent rows, too few points for the moves,
            or a negative noise.
    """
    x, y = as_curves(now, "the measure"), as_curves(baseline, "its baseline")
    if x.shape[1] != y.shape[1] or (paired and len(x) != len(y)):
        raise ValueError(f"phases of curves of shape {x.shape} cannot be compared with those of shape {y.shape}.")
    if noise < 0.0:
        raise ValueError(f"the noise of a layer's mean is not negative, this one is {noise}.")
    labels = (clusters, clusters if paired else baseline_clusters)
    in_pairs = paired and len(x) >= LEAST_PAIRS
    this, that = summarise(x, labels[0], "the measure"), summarise(y, labels[1], "its baseline")
    mean = that.mean if reference is None else np.asarray(reference, dtype=np.float64)
    if mean.shape != that.mean.shape:
        raise ValueError(f"the reference has shape {mean.shape}, the curves have {that.points} points.")
    direction = best_start(mean, moves, start)
    edges = (0, *turning_points(mean, moves, direction), this.points - 1)
    change = _Change.of(MeanDifference.of(x, y, labels, in_pairs, View.LEVEL), alpha_diff, alpha_eq, 2.0 * noise)
    strict = alpha_diff / (2 * moves)
    bounds = (bounded_rises(that, ALPHA_PRESENT), bounded_rises(this, ALPHA_PRESENT), bounded_rises(this, strict))
    prominence = declared_prominence(mean)
    margin = max(LEAST_REVERSAL, REVERSAL_SHARE * float(mean.max() - mean.min()))
    findings: list[IntervalFinding] = []
    for phase in range(moves):
        place = _Place(phase + 1, edges[phase], edges[phase + 1], direction * (-1) ** phase, this.n)
        findings.append(_judged(_present(place, bounds, change, prominence), change))
        findings.append(_judged(_monotone(place, this, that, change, margin, strict), change))
    judged = [finding.verdict for finding in findings if finding.verdict is not None]
    return IntervalAgreement(
        verdict=combined(judged) if judged else Verdict.INCONCLUSIVE,
        paired=in_pairs,
        n=this.n,
        n_baseline=that.n,
        confidence=1.0 - alpha_diff,
        noise=noise,
        findings=tuple(findings),
    )


@dataclass(frozen=True, slots=True)
class _Place:
    phase: int
    first: int
    last: int
    direction: int
    n: int


@dataclass(frozen=True, slots=True, eq=False)
class _Change:
    """The change of every rise m[t] - m[s], with the half-widths of its simultaneous and its single intervals, (K,)."""

    rises: Rises
    wide: FloatArray
    narrow: FloatArray
    least: float

    @classmethod
    def of(cls, difference: MeanDifference, alpha_diff: float, alpha_eq: float, least: float) -> _Change:
        rises = Rises.of(CurveSummary(difference.difference, difference.covariance, 1))
        varies = difference.standard_error > 0.0
        df = float(difference.df[varies].min()) if varies.any() else difference.n - 1.0
        critical = simultaneous_bound(difference.covariance, df, alpha_diff, pairs=(rises.first, rises.last))
        single = float(stats.t.isf(alpha_eq, df))
        return cls(rises, critical * rises.standard_error, single * rises.standard_error, least)

    def between(self, layers: tuple[int, int], direction: int) -> tuple[float, tuple[float, float]]:
        """The change of one rise in a direction with its simultaneous interval."""
        at = int(np.flatnonzero((self.rises.first == layers[0]) & (self.rises.last == layers[1]))[0])
        # No change is 0, not -0, which a file would show.
        moved, width = direction * float(self.rises.rise[at]) + 0.0, float(self.wide[at])
        return moved, (moved - width, moved + width)

    def is_noise(self, first: int, last: int, inside: bool) -> bool:
        """Whether the rise over an interval, or all those inside it, certainly changed by no more than the noise."""
        if inside:
            taken = (self.rises.first >= first) & (self.rises.last <= last)
        else:
            taken = (self.rises.first == first) & (self.rises.last == last)
        return bool((np.abs(self.rises.rise[taken]) + self.narrow[taken] <= self.least).all())


def _present(
    place: _Place, bounds: tuple[BoundedRises, BoundedRises, BoundedRises], change: _Change, prominence: float
) -> IntervalFinding:
    """Asked of the baseline's rise, of this run's, and of this run's once more at the strict error."""

    def answer(bounded: BoundedRises) -> tuple[Presence, float, tuple[float, float]]:
        rise, *span = (place.direction * value for value in bounded.between(place.first, place.last))
        low, high = sorted(span)
        if low > prominence:
            return Presence.PRESENT, rise, (low, high)
        return (Presence.ABSENT if high < prominence else Presence.INCONCLUSIVE), rise, (low, high)

    then, before, _ = answer(bounds[0])
    now, effect, interval = answer(bounds[1])
    if now is not then:
        now, effect, interval = answer(bounds[2])
    moved, ends = change.between((place.first, place.last), place.direction)
    return IntervalFinding(
        phase=place.phase,
        question=Question.PRESENCE,
        first=place.first,
        last=place.last,
        direction=place.direction,
        verdict=None,
        then=then,
        now=now,
        layers=(place.first, place.last),
        before=before,
        effect=effect,
        interval=interval,
        margin=prominence,
        change=moved,
        change_interval=ends,
        n=place.n,
        n_needed=None,
    )


def _monotone(
    place: _Place, this: CurveSummary, that: CurveSummary, change: _Change, margin: float, strict: float
) -> IntervalFinding:
    ends = (place.first, place.last, place.direction, margin)
    then, now = monotone(that, *ends), monotone(this, *ends)
    if now.verdict is not then.verdict:
        now = monotone(this, *ends, alpha_violated=strict, alpha_monotone=strict)
    # A reversal is followed where it was found: in the baseline, else now.
    followed = then.layers if then.verdict is Monotonicity.VIOLATED else now.layers
    moved, span = change.between(followed, -place.direction)
    return IntervalFinding(
        phase=place.phase,
        question=Question.MONOTONICITY,
        first=place.first,
        last=place.last,
        direction=place.direction,
        verdict=None,
        then=then.verdict,
        now=now.verdict,
        layers=now.layers,
        before=then.effect,
        effect=now.effect,
        interval=now.interval,
        margin=margin,
        change=moved,
        change_interval=span,
        n=now.n,
        n_needed=None,
    )


def _judged(finding: IntervalFinding, change: _Change) -> IntervalFinding:
    """The finding with its verdict, where the baseline was certain."""
    # The two enumerations of answers have one word for "open".
    if finding.then == Presence.INCONCLUSIVE:
        return finding
    inside = finding.question is Question.MONOTONICITY
    if finding.now == finding.then or change.is_noise(finding.first, finding.last, inside):
        return replace(finding, verdict=Verdict.EQUIVALENT)
    low, high = finding.interval
    # How far the estimate is from where a decision turns, and how far its interval reaches.
    gap, reach = (finding.margin - finding.effect, high - finding.effect)
    if gap < 0.0:
        gap, reach = -gap, finding.effect - low
    if finding.now != Presence.INCONCLUSIVE:
        width = finding.change_interval[1] - finding.change
        if abs(finding.change) - width > change.least:
            return replace(finding, verdict=Verdict.DIFFERS)
        gap, reach = abs(finding.change) - change.least, width
    needed = int(np.ceil(finding.n * max((reach / gap) ** 2, 1.05))) if gap > 0.01 * reach else None
    return replace(finding, verdict=Verdict.INCONCLUSIVE, n_needed=needed)
