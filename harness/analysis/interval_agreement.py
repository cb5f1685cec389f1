"""Whether what held in each phase of the baseline still holds: that the phase is there, and that it goes one way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy import stats

from harness.analysis.agreement import combine_verdicts
from harness.analysis.curves import CurveSummary, FloatArray
from harness.analysis.mean_difference import ALPHA_EQUIVALENT, MeanDifference, Sides, Verdict, View, samples_to_decide
from harness.analysis.monotone import (
    ALPHA_PRESENT,
    Answer,
    Monotonicity,
    PhaseFinding,
    Presence,
    judge_monotonicity,
    judge_presence,
    reversal_margin,
)
from harness.analysis.segments import BoundedRises, Rises, bounded_rises, declared_prominence
from harness.analysis.simultaneous import simultaneous_bound
from harness.analysis.turning_points import best_direction, turning_points

#: How far measuring again moves a layer's mean, until a calibration says otherwise.
DECLARED_NOISE = 1e-3


class Question(StrEnum):
    """What is asked of a phase: is its rise there, and is the curve monotone over it?"""

    PRESENCE = "presence"
    MONOTONICITY = "monotonicity"


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
    baseline: Answer
    measured: Answer
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
    findings: tuple[IntervalFinding, ...]


def judge_intervals(
    sides: Sides,
    *,
    alpha_diff: float,
    reference: npt.ArrayLike | None = None,
    noise: float = DECLARED_NOISE,
    segments: int = 4,
    start: int = 1,
) -> IntervalAgreement:
    """Return whether each phase of the baseline is as present and as monotone, over the baseline's layers, as it was.

    Two questions a phase: does its rise exceed the prominence (present or absent), does a reversal inside it exceed the
    margin (monotone or violated)? Both are those of the claims, with their errors: a phase is chosen for its rise, so
    its bounds hold for all pairs of layers at once. What the baseline is certain of is judged.

    Differs: the opposite is certain now, each question at `alpha_diff` / (2 segments), **and** the quantity has
    certainly changed by more than 2 `noise`, all pairs of layers together at `alpha_diff`. The answer alone would not
    do. Near its margin a quantity is certain one way with the claims' error and, where this run is the larger, certain
    the other way almost always. The change knows no margin: where nothing changed it is false with `alpha_diff` at
    most, wherever the quantity lies. And as certainty is cheap with many samples, what measuring again may do to the
    means of the two layers of a rise is no change.

    Equivalent: the same answer is certain now, or every change certainly lies within 2 `noise`, so that an answer that
    just fails to be certain again is no doubt. Inconclusive: neither.

    Args:
        sides: the run and its baseline; fewer than 32 paired samples are compared as if they were not paired.
        alpha_diff: probability of a false "differs", all questions together.
        reference: mean curve (points,) that sets phases, prominence and margin; by default that of the baseline.
        noise: largest change of a layer's mean between measurements of the same samples.
        segments: number of phases.
        start: direction of the first; 0 takes the reference's better one.

    Raises:
        ValueError: fewer than two independent rows, too few points for the segments, or a negative noise.
    """
    if noise < 0.0:
        raise ValueError(f"the noise of a layer's mean is not negative, this one is {noise}.")
    this, that = sides.summaries()
    mean = that.mean if reference is None else np.asarray(reference, dtype=np.float64)
    if mean.shape != that.mean.shape:
        raise ValueError(f"the reference has shape {mean.shape}, the curves have {that.points} points.")
    direction = best_direction(mean, segments, start)
    edges = (0, *turning_points(mean, segments, direction), this.points - 1)
    change = _Change.from_difference(MeanDifference.from_sides(sides, View.LEVEL), alpha_diff, 2.0 * noise)
    strict = alpha_diff / (2 * segments)
    before, after = bounded_rises(that, ALPHA_PRESENT), bounded_rises(this, ALPHA_PRESENT)
    strictly = bounded_rises(this, strict)
    findings: list[IntervalFinding] = []
    for phase in range(segments):
        stretch = (edges[phase], edges[phase + 1], direction * (-1) ** phase)
        rise, reversal = (*stretch, declared_prominence(mean)), (*stretch, reversal_margin(mean))
        asked = (
            (Question.PRESENCE, _rise(before, *rise), _rise(after, *rise), partial(_rise, strictly, *rise)),
            (
                Question.MONOTONICITY,
                judge_monotonicity(that, *reversal),
                judge_monotonicity(this, *reversal),
                partial(judge_monotonicity, this, *reversal, (strict, strict)),
            ),
        )
        findings += [change.judged(phase, stretch, *answers) for answers in asked]
    judged = [finding.verdict for finding in findings if finding.verdict is not None]
    return IntervalAgreement(
        verdict=combine_verdicts(judged) if judged else Verdict.INCONCLUSIVE,
        paired=sides.in_pairs,
        n=this.n,
        n_baseline=that.n,
        confidence=1.0 - alpha_diff,
        findings=tuple(findings),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Change:
    """The change of every rise m[t] - m[s], with the half-widths of its simultaneous and its single intervals, (K,)."""

    rises: Rises
    wide: FloatArray
    narrow: FloatArray
    least: float

    @classmethod
    def from_difference(cls, difference: MeanDifference, alpha_diff: float, least: float) -> _Change:
        rises = Rises.from_summary(CurveSummary(difference.difference, difference.covariance, 1))
        varies = difference.standard_error > 0.0
        df = float(difference.df[varies].min()) if varies.any() else difference.n - 1.0
        critical = simultaneous_bound(difference.covariance, df, alpha_diff, pairs=(rises.first, rises.last))
        single = float(stats.t.isf(ALPHA_EQUIVALENT, df))
        return cls(rises, critical * rises.standard_error, single * rises.standard_error, least)

    def between(self, layers: tuple[int, int], direction: int) -> tuple[float, tuple[float, float]]:
        """Return the change of one rise in a direction with its simultaneous interval."""
        at = self.rises.index(*layers)
        # No change is 0, not -0, which a file would show.
        moved, width = direction * float(self.rises.rise[at]) + 0.0, float(self.wide[at])
        return moved, (moved - width, moved + width)

    def is_noise(self, first: int, last: int, inside: bool) -> bool:
        """Whether the rise over an interval, or all those inside it, certainly changed by no more than the noise."""
        taken = (self.rises.first >= first) & (self.rises.last <= last)
        if not inside:
            taken &= (self.rises.first == first) & (self.rises.last == last)
        return bool((np.abs(self.rises.rise[taken]) + self.narrow[taken] <= self.least).all())

    def judged(
        self,
        phase: int,
        stretch: tuple[int, int, int],
        question: Question,
        then: PhaseFinding,
        now: PhaseFinding,
        strictly: Callable[[], PhaseFinding],
    ) -> IntervalFinding:
        """The answers to one question, with a verdict where the baseline was certain; `strictly` asks once more."""
        first, last, direction = stretch
        if now.verdict is not then.verdict:
            now = strictly()
        inside = question is Question.MONOTONICITY
        # A reversal is followed where it was found: in the baseline, else now.
        followed = then.layers if then.verdict is Monotonicity.VIOLATED else now.layers
        moved, span = self.between(followed, -direction if inside else direction)
        verdict, needed = None, None
        # The two enumerations of answers have one word for "open".
        if then.verdict != Presence.INCONCLUSIVE:
            is_noise = self.is_noise(first, last, inside)
            verdict, needed = self._verdict(then, now, moved, span[1] - moved, is_noise)
        return IntervalFinding(
            phase=phase + 1,
            question=question,
            first=first,
            last=last,
            direction=direction,
            verdict=verdict,
            baseline=then.verdict,
            measured=now.verdict,
            layers=now.layers,
            before=then.effect,
            effect=now.effect,
            interval=now.interval,
            margin=now.margin,
            change=moved,
            change_interval=span,
            n=now.n,
            n_needed=needed,
        )

    def _verdict(
        self, then: PhaseFinding, now: PhaseFinding, moved: float, width: float, is_noise: bool
    ) -> tuple[Verdict, int | None]:
        """Return the verdict with how many samples would decide; `width` is half the interval of the change `moved`."""
        if now.verdict == then.verdict or is_noise:
            return Verdict.EQUIVALENT, None
        if now.verdict != Presence.INCONCLUSIVE:
            if abs(moved) - width > self.least:
                return Verdict.DIFFERS, None
            gap, reach = abs(moved) - self.least, width
        else:
            # How far the estimate is from where a decision turns, and how far its interval reaches.
            gap, reach = abs(now.margin - now.effect), now.interval[1] - now.effect
            if now.effect > now.margin:
                reach = now.effect - now.interval[0]
        return Verdict.INCONCLUSIVE, samples_to_decide(now.n, gap, reach)


def _rise(bounded: BoundedRises, first: int, last: int, direction: int, prominence: float) -> PhaseFinding:
    rise, *ends = (direction * value for value in bounded.between(first, last))
    return judge_presence((first, last), rise, (min(ends), max(ends)), prominence, bounded.n)
