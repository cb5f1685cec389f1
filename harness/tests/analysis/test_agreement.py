from __future__ import annotations

import time
from operator import attrgetter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness.analysis.agreement import Agreement, Verdict, View, combine_verdicts
from harness.analysis.curves import FloatArray
from harness.analysis.margins import (
    Tolerance,
    declared_margins,
)
from harness.analysis.simultaneous import simultaneous_bound
from harness.lab.simulation.synthetic import shift_curve
from harness.tests.support.synthetic_curves import POINTS, add_rerun_noise, draw_curves, draw_recalls, phase_curve
from harness.tests.support.two_sides import judge_agreement, judge_recall

ALPHA = 0.01 / 160
MARGIN = declared_margins(phase_curve()).curve
BASELINE = draw_curves(phase_curve(), 64, seed=100)


def judged(measured: FloatArray, baseline: FloatArray = BASELINE, *, paired: bool = True) -> Agreement:
    return judge_agreement(measured, baseline, MARGIN, paired=paired, alpha_diff=ALPHA)


def literal_verdict(
    measured: FloatArray, baseline: FloatArray, margin: float, alpha: float, *, paired: bool
) -> Verdict:
    """Return the rule layer by layer, with scipy's own t intervals and the bound c."""
    if paired:
        covariance, df = np.cov((measured - baseline).T), np.full(measured.shape[1], len(measured) - 1.0)
        tests = [stats.ttest_rel(a, b) for a, b in zip(measured.T, baseline.T, strict=True)]
    else:
        covariance = np.cov(measured.T) / len(measured) + np.cov(baseline.T) / len(baseline)
        tests = [stats.ttest_ind(a, b, equal_var=False) for a, b in zip(measured.T, baseline.T, strict=True)]
        df = np.array([test.df for test in tests])
    difference = measured.mean(axis=0) - baseline.mean(axis=0)
    error = difference / np.array([test.statistic for test in tests])
    critical = simultaneous_bound(covariance, float(df.min()), alpha)
    if (np.abs(difference) - critical * error > margin).any():
        return Verdict.DIFFERS
    equivalent = np.abs(difference) + stats.t.isf(0.025, df) * error < margin
    return Verdict.EQUIVALENT if equivalent.all() else Verdict.INCONCLUSIVE


@pytest.mark.parametrize("paired", [True, False])
def test_the_level_verdict_is_that_of_the_literal_rule(paired: bool) -> None:
    seen = set()
    for seed in range(18):
        baseline = draw_curves(phase_curve(), 48, seed)
        rerun, drawn = add_rerun_noise(baseline, seed, sd=0.05), draw_curves(phase_curve(), 60, seed + 50, sd=0.06)
        measured = (rerun if paired else drawn) + (0.0, 0.02, 0.12)[seed % 3] * np.sin(np.arange(POINTS) / 4.0)
        margin = (0.02, 0.05)[seed % 2]
        agreement = judge_agreement(measured, baseline, margin, paired=paired, alpha_diff=ALPHA, shape=False)
        assert agreement.verdict is literal_verdict(measured, baseline, margin, ALPHA, paired=paired)
        assert agreement.mean.paired is paired
        seen.add(agreement.verdict)
    assert seen == {Verdict.EQUIVALENT, Verdict.DIFFERS, Verdict.INCONCLUSIVE}


def test_the_same_numbers_reproduce() -> None:
    agreement = judged(BASELINE + 5e-4)
    assert (agreement.verdict, agreement.reproduced) == (Verdict.REPRODUCES, True)
    assert (agreement.beyond_tolerance, agreement.layers) == (0, ())
    assert agreement.compared == 64
    assert agreement.level.verdict is Verdict.EQUIVALENT


def test_a_coarser_data_type_is_equivalent_and_names_the_worst_samples() -> None:
    measured = BASELINE.copy()
    measured[5, 9] += 0.02
    measured[40, 12] -= 0.03
    agreement = judged(measured)
    assert (agreement.verdict, agreement.reproduced, agreement.beyond_tolerance) == (Verdict.EQUIVALENT, False, 2)
    assert agreement.layers == (9, 12)
    assert [(w.index, w.layer) for w in agreement.worst_samples] == [(40, 12), (5, 9)]
    assert agreement.worst_samples[0].amount == pytest.approx(-0.03)
    assert agreement.largest == pytest.approx(0.03)


def test_the_tolerance_may_differ_between_samples() -> None:
    measured = BASELINE + np.where(np.arange(64) < 32, 0.004, 0.0)[:, None]
    strict, loose = (Tolerance(tuple(np.where(np.arange(64) < 32, wide, 1e-3))) for wide in (0.001, 0.005))
    verdicts = [
        judge_agreement(measured, BASELINE, MARGIN, paired=True, alpha_diff=ALPHA, tolerance=t).verdict
        for t in (strict, loose)
    ]
    assert verdicts == [Verdict.EQUIVALENT, Verdict.REPRODUCES]
    with pytest.raises(ValueError, match="amounts for 64 samples"):
        judge_agreement(measured, BASELINE, MARGIN, paired=True, alpha_diff=ALPHA, tolerance=Tolerance((0.1, 0.2)))


def test_another_data_type_need_not_reproduce() -> None:
    agreement = judge_agreement(
        BASELINE, BASELINE, MARGIN, paired=True, alpha_diff=ALPHA, reproducible=False, reason="bfloat16 now"
    )
    assert (agreement.verdict, agreement.reproduced, agreement.reason) == (Verdict.EQUIVALENT, None, "bfloat16 now")


def test_exchanged_samples_do_not_reproduce_with_an_unchanged_mean() -> None:
    agreement = judged(BASELINE[np.roll(np.arange(64), 1)])
    assert agreement.reproduced is False
    assert agreement.beyond_tolerance == 64
    assert agreement.mean.effect == pytest.approx(0.0, abs=1e-12)
    assert agreement.verdict in (Verdict.EQUIVALENT, Verdict.INCONCLUSIVE)


@pytest.mark.parametrize(
    ("measured", "layers"),
    [
        (add_rerun_noise(draw_curves(shift_curve(phase_curve(), 2.0), 64, seed=100), 1), {5, 6, 9, 10, 11}),
        (
            add_rerun_noise(draw_curves(phase_curve(heights=(0.10, 0.45, 0.40, 0.65, 0.40)), 64, seed=100), 2),
            {14, 15, 16},
        ),
        (add_rerun_noise(BASELINE * 1.25, 3), {7, 23, 24, 25}),
        (add_rerun_noise(BASELINE + 0.06, 4), set(range(POINTS))),
    ],
    ids=["shift by two layers", "flattened phase", "scale", "offset"],
)
def test_real_changes_differ_at_their_layers(measured: FloatArray, layers: set[int]) -> None:
    agreement = judged(measured)
    assert (agreement.verdict, agreement.reproduced, agreement.mean.view) == (Verdict.DIFFERS, False, View.LEVEL)
    assert layers <= set(agreement.layers)
    assert agreement.mean.layer in agreement.layers
    assert agreement.mean.effect == pytest.approx((measured - BASELINE).mean(axis=0)[agreement.mean.layer])
    assert agreement.mean.interval[0] < agreement.mean.effect < agreement.mean.interval[1]
    assert min(np.abs(agreement.mean.interval)) > agreement.mean.margin == MARGIN
    assert agreement.mean.confidence == 1.0 - ALPHA / 2
    assert 1 <= len(agreement.worst_samples) <= 5


def test_shape_and_level_are_judged_separately() -> None:
    lifted = judged(add_rerun_noise(BASELINE + 0.06, 5))
    assert lifted.level.verdict is Verdict.DIFFERS
    assert lifted.shape is not None
    assert lifted.shape.verdict is Verdict.EQUIVALENT
    unpaired = judged(draw_curves(shift_curve(phase_curve(), 3.0), 64, seed=7), paired=False)
    assert unpaired.shape is not None
    assert unpaired.shape.verdict is unpaired.verdict is Verdict.DIFFERS


def test_a_constant_difference_beyond_the_margin_differs() -> None:
    moved = BASELINE.copy()
    moved[:, 3] = BASELINE[:, 3] + 0.2
    agreement = judged(moved)
    assert (agreement.verdict, agreement.layers, agreement.mean.layer) == (Verdict.DIFFERS, (3,), 3)
    assert agreement.mean.interval == pytest.approx((0.2, 0.2))
    constant, other = np.zeros((40, 5)), np.zeros((40, 5))
    other[:, 2] = 0.5
    assert judge_agreement(other, constant, 0.1, paired=True, alpha_diff=ALPHA, shape=False).layers == (2,)
    assert judge_agreement(other, constant, 0.1, paired=False, alpha_diff=ALPHA, shape=False).verdict is Verdict.DIFFERS


def test_an_unchanged_measure_raises_no_alarm() -> None:
    """Test 60 comparisons without a change: half paired with the noise of a coarse data type, half new samples."""
    for seed in range(30):
        baseline = draw_curves(phase_curve(), 64, seed=1000 + seed)
        assert judged(add_rerun_noise(baseline, seed, sd=0.01), baseline).verdict is Verdict.EQUIVALENT
        fresh = judged(draw_curves(phase_curve(), 64, seed=2000 + seed), baseline, paired=False)
        assert fresh.verdict is not Verdict.DIFFERS


def test_an_inconclusive_comparison_estimates_the_sufficient_number_of_samples() -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((400, POINTS)) * 0.08
    noise -= noise.mean(axis=0)
    few = judge_agreement(
        noise[:40] - noise[:40].mean(axis=0), np.zeros((40, POINTS)), 0.02, paired=True, alpha_diff=ALPHA
    )
    assert few.verdict is Verdict.INCONCLUSIVE
    assert few.layers
    assert few.mean.n_needed is not None
    # Equivalence needs t sd / sqrt(n) < margin: with sd 0.08 (largest of 31 layers 0.1) about 60 to 110.
    assert 60 <= few.mean.n_needed <= 110
    enough = judge_agreement(noise, np.zeros((400, POINTS)), 0.02, paired=True, alpha_diff=ALPHA)
    assert (enough.verdict, enough.mean.n_needed) == (Verdict.EQUIVALENT, None)


def test_a_difference_on_the_margin_stays_inconclusive_for_any_number_of_samples() -> None:
    difference = np.random.default_rng(1).standard_normal((64, 4)) * 0.05
    difference += 0.02 - difference.mean(axis=0)
    agreement = judge_agreement(difference, np.zeros((64, 4)), 0.02, paired=True, alpha_diff=ALPHA, shape=False)
    assert (agreement.verdict, agreement.mean.n_needed) == (Verdict.INCONCLUSIVE, None)


def test_few_pairs_are_compared_as_unpaired_but_may_reproduce() -> None:
    few = BASELINE[:16]
    agreement = judge_agreement(few, few, MARGIN, paired=True, alpha_diff=ALPHA)
    assert (agreement.verdict, agreement.mean.paired) == (Verdict.REPRODUCES, False)
    assert agreement.level.verdict is Verdict.INCONCLUSIVE
    assert judge_agreement(few + 0.005, few, MARGIN, paired=True, alpha_diff=ALPHA).verdict is Verdict.INCONCLUSIVE


def test_an_inconclusive_change_is_located_where_samples_changed() -> None:
    few = BASELINE[:16]
    agreement = judge_agreement(few + 0.005 * (np.arange(POINTS) >= 20), few, MARGIN, paired=True, alpha_diff=ALPHA)
    assert (agreement.verdict, agreement.reproduced) == (Verdict.INCONCLUSIVE, False)
    assert agreement.layers == tuple(range(20, POINTS))


def test_samples_of_one_cluster_count_once() -> None:
    doubled, measured = np.repeat(BASELINE, 2, axis=0), np.repeat(add_rerun_noise(BASELINE, 9), 2, axis=0)
    labels = [i // 2 for i in range(128)]
    agreement = judge_agreement(measured, doubled, MARGIN, paired=True, alpha_diff=ALPHA, clusters=labels)
    assert agreement.level == judged(add_rerun_noise(BASELINE, 9)).level
    assert (agreement.mean.n, agreement.compared) == (64, 128)


@pytest.mark.parametrize("paired", [True, False])
def test_the_order_of_samples_does_not_matter(paired: bool) -> None:
    measured, order = add_rerun_noise(BASELINE, 3, sd=0.05), np.random.default_rng(0).permutation(64)
    assert judged(measured[order], BASELINE[order], paired=paired).level == judged(measured, paired=paired).level
    if not paired:
        assert judged(measured, BASELINE[order], paired=False) == judged(measured, paired=False)


def test_unchanged_recall_reproduces_and_lost_recall_differs() -> None:
    baseline = draw_recalls(128, seed=0)
    same = judge_recall(baseline, baseline, paired=True, alpha_diff=ALPHA)
    assert (same.verdict, same.shape) == (Verdict.REPRODUCES, None)
    changed = baseline.copy()
    changed[3, 30] = 0.0 if baseline[3, 30] else 1.0
    assert judge_recall(changed, baseline, paired=True, alpha_diff=ALPHA).verdict is Verdict.REPRODUCES
    lost = np.clip(baseline - 0.125, 0.0, 1.0)
    agreement = judge_recall(lost, baseline, paired=True, alpha_diff=ALPHA)
    assert (agreement.verdict, agreement.reproduced) == (Verdict.DIFFERS, False)
    assert 30 in agreement.layers
    assert agreement.mean.effect < -0.05


def test_a_loss_of_recall_in_few_samples_is_inconclusive() -> None:
    """Identical samples have no variance, so only the rule of the added sample requires more of them."""
    two = np.zeros((128, POINTS))
    two[:2, 20] = 0.125
    for n, verdict in ((40, Verdict.INCONCLUSIVE), (128, Verdict.EQUIVALENT)):
        agreement = judge_recall(two[:n], np.zeros((n, POINTS)), paired=True, alpha_diff=ALPHA)
        assert (agreement.verdict, agreement.reproduced) == (verdict, False)
    inconclusive = judge_recall(two[:40], np.zeros((40, POINTS)), paired=True, alpha_diff=ALPHA)
    assert inconclusive.mean.n_needed is not None
    # One sample of 0.5 among n has mean 0.5 / n and standard error 0.5 / n: 0.5 (1 + t) / n < 0.02.
    assert inconclusive.mean.n_needed == pytest.approx(0.5 * (1 + stats.t.isf(0.025, 75)) / 0.02, rel=0.06)


def test_a_difference_that_one_sample_could_undo_is_inconclusive() -> None:
    base = np.zeros((33, 4))
    measured = base.copy()
    measured[:, -1] = 0.021
    assert judge_recall(measured, base, paired=True, alpha_diff=ALPHA).verdict is Verdict.INCONCLUSIVE


def test_combined_verdicts() -> None:
    assert combine_verdicts([Verdict.EQUIVALENT, Verdict.DIFFERS, Verdict.INCONCLUSIVE]) is Verdict.DIFFERS
    assert combine_verdicts([Verdict.EQUIVALENT, Verdict.INCONCLUSIVE]) is Verdict.INCONCLUSIVE
    assert combine_verdicts([Verdict.EQUIVALENT, Verdict.REPRODUCES]) is Verdict.EQUIVALENT


@pytest.mark.parametrize(
    ("measured", "margin", "message"),
    [
        (BASELINE[:, :-1], MARGIN, "not the same model"),
        (BASELINE[:-1], MARGIN, "same samples"),
        (np.where(np.arange(POINTS) == 4, np.nan, BASELINE), MARGIN, "sample 0 at layer 4"),
        (BASELINE, 0.0, "positive"),
        (BASELINE[0], MARGIN, "samples x points"),
    ],
    ids=["points", "samples", "nan", "margin", "one curve"],
)
def test_incomparable_values_are_refused(measured: FloatArray, margin: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        judge_agreement(measured, BASELINE, margin, paired=True, alpha_diff=ALPHA)


def test_a_verdict_is_fast_and_repeatable() -> None:
    measured = add_rerun_noise(BASELINE, 0)
    judged(measured)
    begin = time.process_time()
    agreement = judged(measured)
    assert time.process_time() - begin < 1.0
    assert agreement == judged(measured)


@given(seed=st.integers(0, 10_000), add=st.floats(-1.0, 1.0), power=st.integers(-4, 4), paired=st.booleans())
@settings(max_examples=12, deadline=None)
def test_a_change_of_units_changes_no_verdict(seed: int, add: float, power: int, paired: bool) -> None:
    baseline, unit = draw_curves(phase_curve(), 40, seed), 2.0**power
    measured = add_rerun_noise(baseline, seed, sd=0.05) + 0.04 * np.sin(np.arange(POINTS) / 3.0)
    original = judge_agreement(measured, baseline, 0.03, paired=paired, alpha_diff=ALPHA)
    other = judge_agreement(unit * measured + add, unit * baseline + add, 0.03 * unit, paired=paired, alpha_diff=ALPHA)
    decided = attrgetter("verdict", "layers", "mean.layer", "mean.n_needed")
    assert decided(original) == decided(other)
    assert other.mean.effect == pytest.approx(unit * original.mean.effect)
    assert other.mean.interval == pytest.approx(tuple(unit * end for end in original.mean.interval), rel=0.02, abs=1e-9)
