"""Comparison of each phase with the baseline: its presence and its monotonicity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

import numpy as np
import numpy.typing as npt

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
from harness.analysis.quantiles import student_upper
from harness.analysis.segments import BoundedRises, Rises, bounded_rises, declared_prominence
from harness.analysis.simultaneous import simultaneous_bound
from harness.analysis.turning_points import best_direction, turning_points

#: Change of a layer's mean between repeated measurements, unless a calibration replaces it.
DECLARED_NOISE = 1e-3


class Question(StrEnum):
    """Question about a phase: is its rise present, or is the curve monotone over it?"""

    PRESENCE = "presence"
    MONOTONICITY = "monotonicity"


@dataclass(frozen=True, slots=True)
class IntervalFinding:
    """The answers of the baseline and of the run to one question about one phase.

    `phase` counts from 1. `first` and `last` are the phase's layers in the baseline, `direction` is its direction.
    `effect` is the rise in that direction, or the largest reversal, between `layers`. Its `interval` is compared with
    `margin`, and `before` is the effect in the baseline.

    `change` is measured minus baseline, of the rise or of one reversal. The reversal lies between the baseline's
    violating layers if there are any, else between the run's. `change_interval` holds for all pairs of layers at once
    with the agreement's `confidence`. `verdict` is None if the baseline's answer is inconclusive. `n_needed` estimates
    the number of samples that would decide, None if the verdict is not inconclusive or no estimate exists.
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
    """The verdict on all phases of a curve: the worst verdict among the `findings`.

    It is inconclusive if the baseline answers no question conclusively. `confidence` applies to the changes of all
    questions together. `n` and `n_baseline` count independent rows.
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
    """Compare the presence and monotonicity of each phase with the baseline, over the baseline's layers.

    Two questions per phase: does its rise exceed the prominence (present or absent), and does a reversal inside it
    exceed the margin (monotone or violated)? The tests and their errors are the same as in the claims. Phases are
    selected for their rise, so the bounds hold for all pairs of layers at once. Questions that are inconclusive in the
    baseline are not judged.

    Differs: two conditions hold. The run confirms the opposite answer, each question at `alpha_diff` / (2 segments).
    **And** the quantity is confirmed to have changed by more than 2 `noise`, over all pairs of layers together at
    `alpha_diff`. The answer alone would not suffice. Near its margin the baseline may confirm one answer with the
    error of a claim. A larger run then confirms the opposite almost always. The second condition has no
    margin, so without a real change it is false with probability `alpha_diff` at most. The noise allowance
    covers what measuring again does to the means of the two layers of a rise, which large n would otherwise confirm.

    Equivalent: the run confirms the same answer, or every change is confirmed to lie within 2 `noise`. In the second
    case an answer that just misses confirmation does not matter. Inconclusive: neither.

    Args:
        sides: the run and its baseline; fewer than 32 paired samples are compared as unpaired.
        alpha_diff: probability of a false "differs", all questions together.
        reference: mean curve (points,) that sets phases, prominence and margin; the default is that of the baseline.
        noise: largest change of a layer's mean between measurements of the same samples.
        segments: number of phases.
        start: direction of the first phase; 0 selects the one that fits the reference better.

    Raises:
        ValueError: there are too few independent rows (under two) or points for the segments, or `noise` is negative.
    """
    if noise < 0.0:
        raise ValueError(f"the noise of a layer's mean cannot be negative, but is {noise}.")
    measured, baseline = sides.summaries()
    mean = baseline.mean if reference is None else np.asarray(reference, dtype=np.float64)
    if mean.shape != baseline.mean.shape:
        raise ValueError(f"the reference has shape {mean.shape}, the curves have {baseline.points} points.")
    direction = best_direction(mean, segments, start)
    edges = (0, *turning_points(mean, segments, direction), measured.points - 1)
    change = _Change.from_difference(MeanDifference.from_sides(sides, View.LEVEL), alpha_diff, 2.0 * noise)
    strict = alpha_diff / (2 * segments)
    baseline_rises, measured_rises = bounded_rises(baseline, ALPHA_PRESENT), bounded_rises(measured, ALPHA_PRESENT)
    strict_rises = bounded_rises(measured, strict)
    findings: list[IntervalFinding] = []
    for phase in range(segments):
        phase_span = (edges[phase], edges[phase + 1], direction * (-1) ** phase)
        rise, reversal = (*phase_span, declared_prominence(mean)), (*phase_span, reversal_margin(mean))
        questions = (
            (
                Question.PRESENCE,
                _rise(baseline_rises, *rise),
                _rise(measured_rises, *rise),
                partial(_rise, strict_rises, *rise),
            ),
            (
                Question.MONOTONICITY,
                judge_monotonicity(baseline, *reversal),
                judge_monotonicity(measured, *reversal),
                partial(judge_monotonicity, measured, *reversal, (strict, strict)),
            ),
        )
        findings += [change.judged(phase, phase_span, *answers) for answers in questions]
    judged = [finding.verdict for finding in findings if finding.verdict is not None]
    return IntervalAgreement(
        verdict=combine_verdicts(judged) if judged else Verdict.INCONCLUSIVE,
        paired=sides.in_pairs,
        n=measured.n,
        n_baseline=baseline.n,
        confidence=1.0 - alpha_diff,
        findings=tuple(findings),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Change:
    """The change of every rise m[t] - m[s] with half-widths of the simultaneous and single intervals, (K,)."""

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
        single = student_upper(ALPHA_EQUIVALENT, df)
        return cls(rises, critical * rises.standard_error, single * rises.standard_error, least)

    def between(self, layers: tuple[int, int], direction: int) -> tuple[float, tuple[float, float]]:
        """Return the change of one rise in the given direction, with its simultaneous interval."""
        index = self.rises.index(*layers)
        # Adding 0.0 turns -0 into 0, which would otherwise appear in a file.
        change, width = direction * float(self.rises.rise[index]) + 0.0, float(self.wide[index])
        return change, (change - width, change + width)

    def is_noise(self, first: int, last: int, inside: bool) -> bool:
        """Return True if the rise over an interval (or every rise inside it) is confirmed to change by noise only."""
        selected = (self.rises.first >= first) & (self.rises.last <= last)
        if not inside:
            selected &= (self.rises.first == first) & (self.rises.last == last)
        return bool((np.abs(self.rises.rise[selected]) + self.narrow[selected] <= self.least).all())

    def judged(
        self,
        phase: int,
        phase_span: tuple[int, int, int],
        question: Question,
        baseline: PhaseFinding,
        measured: PhaseFinding,
        judge_strictly: Callable[[], PhaseFinding],
    ) -> IntervalFinding:
        """Return the answers to one question, with a verdict if the baseline's answer is conclusive.

        If the answers differ, `judge_strictly` gives the run's answer at the stricter level.
        """
        first, last, direction = phase_span
        if measured.verdict is not baseline.verdict:
            measured = judge_strictly()
        inside = question is Question.MONOTONICITY
        # A reversal is compared between the layers of the baseline's violation, else of this run's.
        layers = baseline.layers if baseline.verdict is Monotonicity.VIOLATED else measured.layers
        change, interval = self.between(layers, -direction if inside else direction)
        verdict, needed = None, None
        # Presence and Monotonicity share the value "inconclusive".
        if baseline.verdict != Presence.INCONCLUSIVE:
            is_noise = self.is_noise(first, last, inside)
            verdict, needed = self._verdict(baseline, measured, change, interval[1] - change, is_noise)
        return IntervalFinding(
            phase=phase + 1,
            question=question,
            first=first,
            last=last,
            direction=direction,
            verdict=verdict,
            baseline=baseline.verdict,
            measured=measured.verdict,
            layers=measured.layers,
            before=baseline.effect,
            effect=measured.effect,
            interval=measured.interval,
            margin=measured.margin,
            change=change,
            change_interval=interval,
            n=measured.n,
            n_needed=needed,
        )

    def _verdict(
        self, baseline: PhaseFinding, measured: PhaseFinding, change: float, width: float, is_noise: bool
    ) -> tuple[Verdict, int | None]:
        """Return the verdict and about how many samples would decide; `width` is the half-width of `change`."""
        if measured.verdict == baseline.verdict or is_noise:
            return Verdict.EQUIVALENT, None
        if measured.verdict != Presence.INCONCLUSIVE:
            if abs(change) - width > self.least:
                return Verdict.DIFFERS, None
            gap, reach = abs(change) - self.least, width
        else:
            # Distance from the estimate to the margin, and half-width of its interval on that side.
            gap, reach = abs(measured.margin - measured.effect), measured.interval[1] - measured.effect
            if measured.effect > measured.margin:
                reach = measured.effect - measured.interval[0]
        return Verdict.INCONCLUSIVE, samples_to_decide(measured.n, gap, reach)


def _rise(bounded: BoundedRises, first: int, last: int, direction: int, prominence: float) -> PhaseFinding:
    rise, *interval_ends = (direction * value for value in bounded.between(first, last))
    return judge_presence((first, last), rise, (min(interval_ends), max(interval_ends)), prominence, bounded.n)
