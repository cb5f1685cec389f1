"""Every verdict on synthetic profiles of known truth, by the way that a measured profile goes."""

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
HOLDS, FAILS, UNDECIDED = ClaimVerdict.HOLDS, ClaimVerdict.FAILS, ClaimVerdict.INCONCLUSIVE

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
    """What became of the four sharp phases, and the verdicts in pairs: of the curve, boundaries, phases and recall.

    `layers` are among those that must be named; `unpaired` is the verdict on the curve, or on recall, of new samples.
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
    Truth("recall loss", SHARP, Change(lost_recall=0.10), recall=OTHER, layers=frozenset({29, 30})),
    Truth("reversal inside a phase", REVERSAL, UNCHANGED, OTHER, OPEN, OTHER, layers=frozenset({18, 20, 21})),
    Truth("flat curve", FLAT, UNCHANGED, OTHER, OPEN, OTHER, layers=frozenset({0, 7, 15, 24, 30})),
    Truth("three segments", THREE, UNCHANGED, OTHER, OTHER, OTHER, layers=frozenset({6, 12, 20, 24, 30})),
    Truth("five segments", FIVE, UNCHANGED, OTHER, OTHER, OTHER, layers=frozenset({12, 18, 24, 30})),
)
EACH = pytest.mark.parametrize("truth", TRUTHS, ids=lambda truth: truth.name)


def judged(now: Profile, family: str) -> Comparison:
    return compare(now, baseline(), FAMILIES[family])


@EACH
def test_verdicts_in_pairs_are_those_of_the_truth(truth: Truth) -> None:
    now = measured(truth.shape, truth.change)
    curve, recall = judged(now, "inter"), judged(now, "lens")
    assert (curve.verdict, recall.verdict) == (truth.curve, truth.recall)
    assert compare_boundaries(now, baseline()).verdict is truth.boundaries
    assert compare_intervals(now, baseline()).verdict is truth.phases
    assert judged(now, "attention").verdict is SAME
    changed = recall.findings[1] if truth.recall is OTHER else curve.findings[0]
    assert truth.layers <= set(changed.agreement.layers)
    assert changed.agreement.mean.paired
    assert changed.agreement.reproduced is False


@EACH
def test_verdicts_on_new_samples_are_those_of_the_truth(truth: Truth) -> None:
    now = measured(truth.shape, truth.change, paired=False)
    changed = judged(now, "lens" if truth.recall is OTHER else "inter")
    assert changed.verdict is truth.unpaired
    assert not changed.findings[0].agreement.mean.paired
    assert judged(now, "attention").verdict is not OTHER


def test_the_same_numbers_reproduce_everywhere() -> None:
    now = Population(SHARP, DEPTH, N).draw(1)
    verdicts = [judged(now, family).verdict for family in FAMILIES]
    verdicts += [compare_boundaries(now, baseline()).verdict, compare_intervals(now, baseline()).verdict]
    assert set(verdicts) == {Verdict.REPRODUCES}


def test_the_shift_has_its_size_and_the_lost_phase_its_name() -> None:
    shifts = compare_boundaries(measured(change=Change(layers=2.0)), baseline()).shifts
    assert [shift.effect for shift in shifts[:3]] == [2.0, 2.0, 2.0]
    assert [round(shift.effect) for shift in shifts[4:6]] == [2, 2]
    flattened = compare_intervals(measured(change=Change(flattened=True)), baseline())
    lost = [finding for finding in flattened.findings if finding.verdict is OTHER]
    assert [(finding.phase, finding.question, finding.first, finding.last) for finding in lost] == [
        (2, Question.PRESENCE, EDGES[1], EDGES[2])
    ]
    reversed_ = compare_intervals(measured(REVERSAL), baseline())
    found = [finding for finding in reversed_.findings if finding.verdict is OTHER]
    assert [(finding.phase, finding.question) for finding in found] == [(3, Question.MONOTONICITY)]
    assert found[0].layers == (18, 20)


@pytest.mark.parametrize(
    ("shape", "segments", "four_phases", "decisive"),
    [
        (SHARP, 4, HOLDS, "four monotone segments"),
        (REVERSAL, 4, FAILS, "no reversal in III"),
        (FLAT, 0, UNDECIDED, "four monotone segments"),
        (THREE, 3, FAILS, "four monotone segments"),
        (FIVE, 5, FAILS, "four monotone segments"),
    ],
    ids=lambda value: value.name if isinstance(value, Shape) else "",
)
def test_claims_are_those_of_the_truth(shape: Shape, segments: int, four_phases: ClaimVerdict, decisive: str) -> None:
    """The flat curve is called undecided: noise alone has a range, and a tenth of it is no prominence to exclude."""
    reading = phase_reading(measured(shape))
    claims = judge_claims(reading)
    assert reading.any_segments.count == segments
    assert (claims["four-phases"].verdict, claims["four-phases"].decisive.name) == (four_phases, decisive)
    assert (claims["alignment"].verdict is HOLDS) is (shape in (SHARP, REVERSAL))
    assert (claims["output-preparation"].verdict is HOLDS) is (shape in (SHARP, REVERSAL))
