"""Presence and monotonicity of phases, compared with a literal rule; inconclusive baselines are not judged."""

from __future__ import annotations

from itertools import pairwise
from operator import attrgetter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness.analysis.curves import FloatArray
from harness.analysis.interval_agreement import IntervalAgreement, IntervalFinding, Question
from harness.analysis.mean_difference import Verdict
from harness.analysis.monotone import Monotonicity, Presence
from harness.analysis.simultaneous import simultaneous_bound
from harness.analysis.turning_points import turning_points
from harness.lab.simulation.synthetic import shift_curve
from harness.tests.support.synthetic_curves import add_rerun_noise, draw_curves, phase_curve
from harness.tests.support.two_sides import judge_intervals

ALPHA = 0.01 / 76
Answered = tuple[str, int, int]  # an answer, empty where it is open, and the two layers that it rests on
BASELINE = draw_curves(phase_curve(), 64, seed=100)


def short(fall: float = 0.2) -> FloatArray:
    """Return four phases in 16 layers, the second a fall of this size. Prominence 0.06; a reversal of 0.03 passes."""
    return phase_curve((0, 4, 8, 12, 16), (0.1, 0.5, 0.5 - fall, 0.7, 0.3))


def finding_of(agreement: IntervalAgreement, phase: int, question: Question) -> IntervalFinding:
    return next(finding for finding in agreement.findings if (finding.phase, finding.question) == (phase, question))


def literal(x: FloatArray, y: FloatArray, noise: float) -> list[Verdict | None]:
    """Return the verdicts of the paired rule, computed separately for every pair of layers."""
    n, points = y.shape
    mean = y.mean(axis=0)
    spread = float(np.ptp(mean))
    edges = [0, *turning_points(mean, 4), points - 1]
    pairs = [(s, t) for s in range(points) for t in range(s + 1, points)]

    def bound(rows: FloatArray, alpha: float, inside: tuple[int, int] | None = None) -> float:
        first, last = inside or (0, points - 1)
        selected = np.array([(s - first, t - first) for s, t in pairs if first <= s and t <= last])
        covariance = np.cov(rows[:, first : last + 1].T)
        return simultaneous_bound(covariance, n - 1, alpha, pairs=tuple(selected.T), two_sided=inside is None)

    def reach(rows: FloatArray, s: int, t: int, critical: float) -> tuple[float, float]:
        rise = rows[:, t] - rows[:, s]
        return float(rise.mean()), critical * float(rise.std(ddof=1)) / np.sqrt(n)

    def presence(rows: FloatArray, first: int, last: int, direction: int, alpha: tuple[float, float]) -> Answered:
        rise, width = reach(rows, first, last, bound(rows, alpha[0]))
        margin = max(0.01, 0.1 * spread)
        certain = "present" if direction * rise - width > margin else ""
        return "absent" if direction * rise + width < margin else certain, first, last

    def monotonicity(rows: FloatArray, first: int, last: int, direction: int, alpha: tuple[float, float]) -> Answered:
        drops = []
        critical = bound(rows, alpha[0], (first, last))
        for s, t in pairs:
            if first <= s and t <= last:
                rise, lower = reach(rows, s, t, critical)
                upper = reach(rows, s, t, float(stats.t.isf(alpha[1], n - 1)))[1]
                drops.append((-direction * rise - lower, -direction * rise + upper, s, t))
        margin = max(0.01, 0.05 * spread)
        lowest, highest = max(drops, key=lambda d: d[0]), max(drops, key=lambda d: d[1])
        if lowest[0] > margin:
            return "violated", lowest[2], lowest[3]
        return "monotone" if highest[1] < margin else "", highest[2], highest[3]

    change = bound(x - y, ALPHA) if np.ptp(x - y) else 0.0
    small = float(stats.t.isf(0.025, n - 1))
    verdicts: list[Verdict | None] = []
    for phase in range(4):
        first, last, direction = edges[phase], edges[phase + 1], (1, -1)[phase % 2]
        for questions in (presence, monotonicity):
            baseline, measured, strictly = (
                questions(rows, first, last, direction, alpha)
                for rows, alpha in ((y, (0.01, 0.025)), (x, (0.01, 0.025)), (x, (ALPHA / 8, ALPHA / 8)))
            )
            looked = [(first, last)]
            if questions is monotonicity:
                looked = [(s, t) for s, t in pairs if first <= s and t <= last]
            still = all(sum(np.abs(reach(x - y, s, t, small))) <= 2 * noise for s, t in looked)
            s, t = baseline[1:] if baseline[0] == "violated" else strictly[1:]
            moved, width = reach(x - y, s, t, change)
            if not baseline[0]:
                verdicts.append(None)
            elif measured[0] == baseline[0] or still:
                verdicts.append(Verdict.EQUIVALENT)
            elif strictly[0] and abs(moved) - width > 2 * noise:
                verdicts.append(Verdict.DIFFERS)
            else:
                verdicts.append(Verdict.INCONCLUSIVE)
    return verdicts


def test_verdicts_are_those_of_the_literal_rule() -> None:
    seen: set[Verdict | None] = set()
    for seed, (dip, now_dip, fall, now_fall, sd) in enumerate(
        [
            (0.0, 0.0, 0.2, 0.2, 0.04),
            (0.0, 0.06, 0.2, 0.02, 0.02),
            (0.06, 0.0, 0.02, 0.2, 0.02),
            (0.0, 0.04, 0.2, 0.08, 0.05),
            (0.035, 0.05, 0.2, 0.055, 0.03),
        ]
    ):
        edges = (0, 2, 3, 5, 8, 12, 16)
        baseline, measured = (
            np.interp(np.arange(17), edges, (0.1, 0.4, 0.4 - dip_size, 0.6, 0.6 - fall_size, 0.8, 0.3))
            for dip_size, fall_size in ((dip, fall), (now_dip, now_fall))
        )
        y = draw_curves(baseline, 48, seed, sd=sd)
        x = add_rerun_noise(y - baseline + measured, seed + 50, sd=5e-3)
        verdicts = [finding.verdict for finding in judge_intervals(x, y, paired=True, alpha_diff=ALPHA).findings]
        assert verdicts == literal(x, y, 1e-3)
        seen.update(verdicts)
    assert seen == {None, Verdict.EQUIVALENT, Verdict.DIFFERS, Verdict.INCONCLUSIVE}


@pytest.mark.parametrize("paired", [True, False])
def test_unchanged_phases_are_equivalent(paired: bool) -> None:
    measured = add_rerun_noise(BASELINE, 1) if paired else draw_curves(phase_curve(), 64, seed=101)
    agreement = judge_intervals(measured, BASELINE, paired=paired, alpha_diff=ALPHA)
    assert (agreement.verdict, agreement.paired) == (Verdict.EQUIVALENT, paired)
    assert (agreement.n, agreement.n_baseline) == (64, 64)
    judged = map(attrgetter("phase", "question"), agreement.findings)
    assert list(judged) == [(phase, question) for phase in (1, 2, 3, 4) for question in Question]
    answers = {(finding.baseline, finding.measured) for finding in agreement.findings}
    assert answers == {(answer, answer) for answer in (Presence.PRESENT, Monotonicity.MONOTONE)}
    layers = [(0, 7, 1), (7, 15, -1), (15, 24, 1), (24, 30, -1)]
    assert [(finding.first, finding.last, finding.direction) for finding in agreement.findings[::2]] == layers


@pytest.mark.parametrize("paired", [True, False])
def test_a_phase_that_vanished_or_appeared_differs(paired: bool) -> None:
    full, flat = phase_curve(), phase_curve(heights=(0.10, 0.45, 0.44, 0.65, 0.40))
    for baseline, measured, answers in (
        (full, flat, (Presence.PRESENT, Presence.ABSENT)),
        (flat, full, (Presence.ABSENT, Presence.PRESENT)),
    ):
        y = draw_curves(baseline, 64, seed=1, sd=0.03)
        x = draw_curves(measured, 64, seed=1 if paired else 2, sd=0.03)
        agreement = judge_intervals(x, y, paired=paired, alpha_diff=ALPHA)
        second = finding_of(agreement, 2, Question.PRESENCE)
        assert agreement.verdict is second.verdict is Verdict.DIFFERS
        assert (second.baseline, second.measured) == answers
        layers = (second.first, second.last)
        assert (second.layers, second.direction) == (layers, -1)
        assert second.margin == pytest.approx(0.1 * np.ptp(y.mean(0)))
        assert second.effect == pytest.approx(x.mean(0)[layers[0]] - x.mean(0)[layers[1]])
        assert second.before == pytest.approx(y.mean(0)[layers[0]] - y.mean(0)[layers[1]])
        assert second.change == pytest.approx(second.effect - second.before)
        assert second.change_interval[0] <= second.change <= second.change_interval[1]


@pytest.mark.parametrize("paired", [True, False])
def test_a_reversal_that_appeared_or_vanished_differs(paired: bool) -> None:
    smooth = phase_curve()
    dented = smooth - np.where((np.arange(31) >= 19) & (np.arange(31) <= 20), 0.16, 0.0)
    for baseline, measured, answers in (
        (smooth, dented, (Monotonicity.MONOTONE, Monotonicity.VIOLATED)),
        (dented, smooth, (Monotonicity.VIOLATED, Monotonicity.MONOTONE)),
    ):
        y = draw_curves(baseline, 64, seed=3, sd=0.03)
        x = draw_curves(measured, 64, seed=3 if paired else 4, sd=0.03)
        third = finding_of(
            judge_intervals(x, y, paired=paired, alpha_diff=ALPHA, reference=smooth), 3, Question.MONOTONICITY
        )
        assert (third.verdict, (third.baseline, third.measured)) == (Verdict.DIFFERS, answers)
        assert third.first <= third.layers[0] < third.layers[1] <= third.last
        # The reversal from layer 18 to 19 is 0.05 of rise less 0.16.
        assert third.change == pytest.approx(0.16 * (1 if measured is dented else -1), abs=0.03)
    assert abs(third.before) == pytest.approx(0.11, abs=0.03)


def test_questions_that_are_inconclusive_in_the_baseline_are_not_judged() -> None:
    y = draw_curves(short(0.06), 64, seed=5)
    agreement = judge_intervals(draw_curves(short(), 64, seed=5), y, paired=True, alpha_diff=ALPHA)
    second = finding_of(agreement, 2, Question.PRESENCE)
    assert (second.baseline, second.measured, second.verdict) == (Presence.INCONCLUSIVE, Presence.PRESENT, None)
    assert agreement.verdict is Verdict.EQUIVALENT


def test_a_baseline_without_confirmed_phases_is_inconclusive() -> None:
    y = draw_curves(np.full(13, 0.3), 6, seed=0, sd=0.3, adjacent=0.2)
    agreement = judge_intervals(y, y, paired=True, alpha_diff=ALPHA)
    assert {finding.verdict for finding in agreement.findings} == {None}
    assert (agreement.verdict, agreement.paired) == (Verdict.INCONCLUSIVE, False)


def test_confirmed_answers_on_both_sides_of_a_margin_do_not_differ_within_the_noise() -> None:
    """With many samples, the rounding of bfloat16 reverses the answer for a rise that lies on its margin."""
    y = draw_curves(short(0.0608), 400, seed=6, sd=1e-3)
    x = y + np.where(np.arange(17) == 8, 1.6e-3, 0.0)
    second = finding_of(judge_intervals(x, y, paired=True, alpha_diff=ALPHA), 2, Question.PRESENCE)
    assert (second.baseline, second.measured) == (Presence.PRESENT, Presence.ABSENT)
    assert second.verdict is Verdict.EQUIVALENT
    strict = finding_of(judge_intervals(x, y, paired=True, alpha_diff=ALPHA, noise=0.0), 2, Question.PRESENCE)
    assert strict.verdict is Verdict.DIFFERS


def test_a_small_baseline_that_confirmed_by_chance_raises_no_alarm() -> None:
    """The true fall is just below the margin; the baseline confirmed it by chance, and the run is conclusive."""
    y = draw_curves(short(0.057), 32, seed=7, sd=0.05)
    lucky = y - y.mean(axis=0) + short(0.076)
    x = draw_curves(short(0.057), 3000, seed=8, sd=0.05)
    second = finding_of(judge_intervals(x, lucky, paired=False, alpha_diff=ALPHA), 2, Question.PRESENCE)
    assert (second.baseline, second.measured) == (Presence.PRESENT, Presence.ABSENT)
    assert second.verdict is Verdict.INCONCLUSIVE
    assert second.n_needed is not None


@pytest.mark.parametrize("off", [-0.004, 0.0, 0.004])
@pytest.mark.parametrize("paired", [True, False])
def test_unchanged_phases_near_the_margins_raise_no_alarm(off: float, paired: bool) -> None:
    """Test a fall and a reversal on their margins, or within a standard error of them."""
    edges = (0, 3, 4, 6, 9, 12, 15)
    mean = phase_curve(edges, (0.1, 0.4, 0.4 - 0.03 - off, 0.6, 0.6 - 0.06 - off, 0.7, 0.3))
    for seed in range(8):
        y = draw_curves(mean, (40, 80)[seed % 2], seed, sd=0.04)
        x = add_rerun_noise(y, seed + 100) if paired else draw_curves(mean, (160, 40)[seed % 2], seed + 100, sd=0.04)
        assert judge_intervals(x, y, paired=paired, alpha_diff=ALPHA).verdict is not Verdict.DIFFERS


def test_an_inconclusive_phase_estimates_the_sufficient_number_of_samples() -> None:
    y = draw_curves(short(), 64, seed=9, sd=0.03)
    agreement = judge_intervals(draw_curves(short(0.07), 64, seed=10, sd=0.12), y, paired=False, alpha_diff=ALPHA)
    second = finding_of(agreement, 2, Question.PRESENCE)
    assert agreement.verdict is Verdict.INCONCLUSIVE
    assert (second.baseline, second.measured) == (Presence.PRESENT, Presence.INCONCLUSIVE)
    assert second.n_needed is None or second.n_needed > 64


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.floats(1.0, 50.0), st.integers(0, 3))
def test_neither_order_nor_unit_changes_a_verdict(seed: int, unit: float, layers: int) -> None:
    y = draw_curves(short(), 40, seed % 97, sd=0.05)
    x = add_rerun_noise(draw_curves(shift_curve(short(), layers), 40, seed % 97, sd=0.05), seed, sd=0.01)
    order = np.random.default_rng(seed).permutation(40)
    agreement = judge_intervals(x, y, paired=True, alpha_diff=ALPHA)
    assert judge_intervals(x[order], y[order], paired=True, alpha_diff=ALPHA) == agreement
    other = judge_intervals(x * unit, y * unit, paired=True, alpha_diff=ALPHA, noise=1e-3 * unit)
    assert [finding.verdict for finding in other.findings] == [finding.verdict for finding in agreement.findings]
    effects = [unit * finding.effect for finding in agreement.findings]
    assert [finding.effect for finding in other.findings] == pytest.approx(effects)


@pytest.mark.parametrize("paired", [True, False])
def test_a_mirrored_curve_has_the_mirrored_phases(paired: bool) -> None:
    x = draw_curves(shift_curve(phase_curve(), 2.0), 64, seed=100)
    up = judge_intervals(x, BASELINE, paired=paired, alpha_diff=ALPHA)
    down = judge_intervals(-x, -BASELINE, paired=paired, alpha_diff=ALPHA, start=-1)
    for finding, other in zip(up.findings, down.findings, strict=True):
        same = attrgetter("first", "last", "verdict", "baseline", "measured", "layers")
        assert (same(finding), finding.direction) == (same(other), -other.direction)
        assert (finding.effect, *finding.interval, finding.change, *finding.change_interval) == pytest.approx(
            (other.effect, *other.interval, other.change, *other.change_interval)
        )


@pytest.mark.parametrize("paired", [True, False])
def test_samples_with_one_image_count_once(paired: bool) -> None:
    x, labels = add_rerun_noise(BASELINE, 0, sd=0.02), [i // 2 for i in range(128)]
    twice = judge_intervals(
        np.repeat(x, 2, axis=0),
        np.repeat(BASELINE, 2, axis=0),
        paired=paired,
        alpha_diff=ALPHA,
        clusters=labels,
        baseline_clusters=labels,
    )
    assert twice == judge_intervals(x, BASELINE, paired=paired, alpha_diff=ALPHA)


def test_phases_prominence_and_margin_come_from_the_reference() -> None:
    """A run with few of the baseline's samples uses the phases of all baseline samples."""
    reference = 2.0 * shift_curve(phase_curve(), 3.0)
    agreement = judge_intervals(BASELINE[:40], BASELINE[:40], paired=True, alpha_diff=ALPHA, reference=reference)
    ends = (0, *turning_points(reference, 4), 30)
    assert [(finding.first, finding.last) for finding in agreement.findings[::2]] == list(pairwise(ends))
    share = {Question.PRESENCE: 0.1, Question.MONOTONICITY: 0.05}
    for finding in agreement.findings:
        assert finding.margin == pytest.approx(share[finding.question] * np.ptp(reference))


def test_curves_of_other_models_and_impossible_noise_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        judge_intervals(BASELINE[:, :-1], BASELINE, paired=False, alpha_diff=ALPHA)
    with pytest.raises(ValueError, match="reference has shape"):
        judge_intervals(BASELINE, BASELINE, paired=True, alpha_diff=ALPHA, reference=np.zeros(5))
    with pytest.raises(ValueError, match="cannot be negative"):
        judge_intervals(BASELINE, BASELINE, paired=True, alpha_diff=ALPHA, noise=-1.0)
