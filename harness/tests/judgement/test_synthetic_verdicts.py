"""Verdicts on synthetic profiles with known truth, from the same functions as for measured profiles."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import pytest

from harness.analysis.agreement import Verdict
from harness.analysis.claims import ClaimVerdict
from harness.analysis.interval_agreement import Question
from harness.baselines.store import Baseline
from harness.judgement.phases import judge_claims, phase_reading
from harness.judgement.regression import Comparison, compare, compare_boundaries, compare_intervals
from harness.lab.simulation.populations import UNCHANGED, Change, Population, remeasure, to_baseline
from harness.lab.simulation.synthetic import EDGES, SHARP, Shape
from harness.profile.measures import FAMILIES
from harness.profile.profile import Profile

DEPTH, N = 30, 128
SAME, OTHER, OPEN = Verdict.EQUIVALENT, Verdict.DIFFERS, Verdict.INCONCLUSIVE
HOLDS, FAILS, INCONCLUSIVE = ClaimVerdict.HOLDS, ClaimVerdict.FAILS, ClaimVerdict.INCONCLUSIVE

REVERSAL = Shape("reversal", (0, 7, 15, 18, 20, 24, 30), (0.10, 0.45, 0.20, 0.42, 0.375, 0.65, 0.40))
FLAT = Shape("flat", (0, DEPTH), (0.3, 0.3))
THREE = Shape("three", (0, 10, 20, 30), (0.1, 0.5, 0.2, 0.6))
FIVE = Shape("five", (0, 6, 12, 18, 24, 30), (0.1, 0.4, 0.1, 0.5, 0.2, 0.6))


@cache
def baseline() -> Baseline:
    return to_baseline(Population(SHARP, DEPTH, N).draw(1))


def measured(shape: Shape = SHARP, change: Change = UNCHANGED, *, paired: bool = True) -> Profile:
    population = Population(shape, DEPTH, N)
    return remeasure(population.draw(1, change), 2) if paired else population.draw(3, change)


@dataclass(frozen=True, slots=True)
class Truth:
    """A change of the four sharp phases, and the expected paired verdicts on curve, boundaries, phases and recall.

    The verdict must name at least `layers`. `unpaired` is the verdict on new samples, for the curve or for recall.
    """

    name: str
    shape: Shape = SHARP
    change: Change = UNCHANGED
    curve: Verdict = SAME
    boundaries: Verdict = SAME
    phases: Verdict = SAME
    recall: Verdict = SAME
    layers: frozenset[int] = frozenset()
    unpaired: Verdict = OTHER


TRUTHS = (
    Truth("nothing", unpaired=OPEN),
    Truth("shift", SHARP, Change(layers=2.0), OTHER, OTHER, OTHER, layers=frozenset({5, 10, 12, 19, 21})),
    Truth("flattened phase", SHARP, Change(flattened=True), OTHER, OPEN, OTHER, layers=frozenset(range(10, 21))),
    Truth("stretched", SHARP, Change(stretch=1.25), OTHER, SAME, SAME, layers=frozenset({0, 15, 24})),
    Truth("recall loss", SHARP, Change(lost_recall=0.10), recall=OTHER, layers=frozenset({29, 30}), unpaired=OPEN),
    Truth("larger recall loss", SHARP, Change(lost_recall=0.12), recall=OTHER, layers=frozenset({29, 30})),
    Truth("reversal inside a phase", REVERSAL, UNCHANGED, OTHER, OPEN, OTHER, layers=frozenset({18, 20, 21})),
    Truth("flat curve", FLAT, UNCHANGED, OTHER, OPEN, OTHER, layers=frozenset({0, 7, 15, 24, 30})),
    Truth("three segments", THREE, UNCHANGED, OTHER, OTHER, OTHER, layers=frozenset({6, 12, 20, 24, 30})),
    Truth("five segments", FIVE, UNCHANGED, OTHER, OTHER, OTHER, layers=frozenset({12, 18, 24, 30})),
)
EACH = pytest.mark.parametrize("truth", TRUTHS, ids=lambda truth: truth.name)


def judged(profile: Profile, family: str) -> Comparison:
    return compare(profile, baseline(), FAMILIES[family])


@EACH
def test_paired_verdicts_match_the_truth(truth: Truth) -> None:
    profile = measured(truth.shape, truth.change)
    curve, recall = judged(profile, "inter"), judged(profile, "lens")
    assert (curve.verdict, recall.verdict) == (truth.curve, truth.recall)
    assert compare_boundaries(profile, baseline()).verdict is truth.boundaries
    assert compare_intervals(profile, baseline()).verdict is truth.phases
    assert judged(profile, "attention").verdict is SAME
    changed = recall.findings[1] if truth.recall is OTHER else curve.findings[0]
    assert truth.layers <= set(changed.agreement.layers)
    assert changed.agreement.mean.paired
    assert changed.agreement.reproduced is False


@EACH
def test_verdicts_on_new_samples_match_the_truth(truth: Truth) -> None:
    profile = measured(truth.shape, truth.change, paired=False)
    changed = judged(profile, "lens" if truth.recall is OTHER else "inter")
    assert changed.verdict is truth.unpaired
    assert not changed.findings[0].agreement.mean.paired
    assert judged(profile, "attention").verdict is not OTHER


def test_the_same_numbers_reproduce_everywhere() -> None:
    profile = Population(SHARP, DEPTH, N).draw(1)
    verdicts = [judged(profile, family).verdict for family in FAMILIES]
    verdicts += [compare_boundaries(profile, baseline()).verdict, compare_intervals(profile, baseline()).verdict]
    assert set(verdicts) == {Verdict.REPRODUCES}


def test_the_size_of_a_shift_and_the_changed_phase_are_reported() -> None:
    shifts = compare_boundaries(measured(change=Change(layers=2.0)), baseline()).shifts
    assert [shift.effect for shift in shifts[:3]] == [2.0, 2.0, 2.0]
    assert [round(shift.effect) for shift in shifts[4:6]] == [2, 2]
    flattened = compare_intervals(measured(change=Change(flattened=True)), baseline())
    lost = [finding for finding in flattened.findings if finding.verdict is OTHER]
    assert [(finding.phase, finding.question, finding.first, finding.last) for finding in lost] == [
        (2, Question.PRESENCE, EDGES[1], EDGES[2])
    ]
    reversed_ = compare_intervals(measured(REVERSAL), baseline())
    reversals = [finding for finding in reversed_.findings if finding.verdict is OTHER]
    assert [(finding.phase, finding.question) for finding in reversals] == [(3, Question.MONOTONICITY)]
    assert reversals[0].layers == (18, 20)


@pytest.mark.parametrize(
    ("shape", "segments", "four_phases", "decisive"),
    [
        (SHARP, 4, HOLDS, "four monotone segments"),
        (REVERSAL, 4, FAILS, "no reversal in III"),
        (FLAT, 0, INCONCLUSIVE, "four monotone segments"),
        (THREE, 3, FAILS, "four monotone segments"),
        (FIVE, 5, FAILS, "four monotone segments"),
    ],
    ids=lambda value: value.name if isinstance(value, Shape) else "",
)
def test_verdicts_on_claims_match_the_truth(
    shape: Shape, segments: int, four_phases: ClaimVerdict, decisive: str
) -> None:
    """The flat curve is inconclusive, because the prominence is a share of its range, which is only noise."""
    reading = phase_reading(measured(shape))
    claims = judge_claims(reading)
    assert reading.any_segments.count == segments
    assert (claims["four-phases"].verdict, claims["four-phases"].decisive.name) == (four_phases, decisive)
    assert (claims["alignment"].verdict is HOLDS) is (shape in (SHARP, REVERSAL))
    assert (claims["output-preparation"].verdict is HOLDS) is (shape in (SHARP, REVERSAL))
