from __future__ import annotations

import numpy as np
import pytest

from harness.analysis.agreement import Verdict
from harness.analysis.boundary_agreement import BoundaryKind
from harness.analysis.curves import FloatArray
from harness.analysis.turning_points import half_heights, turning_points
from harness.lab.simulation.synthetic import EDGES, shift_curve
from harness.tests.support.synthetic_curves import add_rerun_noise, draw_curves, phase_curve, plateau_curve
from harness.tests.support.two_sides import judge_boundaries

ALPHA = 0.01 / 160
BASELINE = draw_curves(phase_curve(), 64, seed=100)


def test_the_same_curves_have_no_shift() -> None:
    agreement = judge_boundaries(BASELINE, BASELINE, paired=True, alpha_diff=ALPHA)
    assert (agreement.verdict, agreement.paired, agreement.n, agreement.start) == (Verdict.EQUIVALENT, True, 64, 1)
    assert [shift.kind for shift in agreement.shifts] == [BoundaryKind.TURNING_POINT] * 3 + [
        BoundaryKind.HALF_HEIGHT
    ] * 4
    assert [shift.index for shift in agreement.shifts] == [1, 2, 3, 1, 2, 3, 4]
    assert all(shift.effect == 0.0 and shift.interval == (0.0, 0.0) for shift in agreement.shifts)
    assert [shift.margin for shift in agreement.shifts] == [1.0] * 3 + [0.5] * 4


@pytest.mark.parametrize("paired", [True, False])
def test_effects_are_differences_of_the_means(paired: bool) -> None:
    measured = draw_curves(shift_curve(phase_curve(), 2.0), 64, seed=3)
    agreement = judge_boundaries(measured, BASELINE, paired=paired, alpha_diff=ALPHA)
    measured_mean, baseline_mean = measured.mean(axis=0), BASELINE.mean(axis=0)
    points = np.subtract(turning_points(measured_mean, 4), turning_points(baseline_mean, 4))
    heights = half_heights(measured_mean, turning_points(measured_mean, 4)) - half_heights(
        baseline_mean, turning_points(baseline_mean, 4)
    )
    np.testing.assert_allclose([shift.effect for shift in agreement.shifts], [*points, *heights])


@pytest.mark.parametrize("paired", [True, False])
def test_a_shift_of_two_layers_differs(paired: bool) -> None:
    mean = shift_curve(phase_curve(), 2.0)
    measured = draw_curves(mean, 64, seed=100 if paired else 101)
    agreement = judge_boundaries(add_rerun_noise(measured, 1), BASELINE, paired=paired, alpha_diff=ALPHA)
    assert agreement.verdict is Verdict.DIFFERS
    middle = agreement.shifts[4]
    assert (middle.kind, middle.index, middle.verdict) == (BoundaryKind.HALF_HEIGHT, 2, Verdict.DIFFERS)
    assert middle.effect == pytest.approx(2.0, abs=0.5)
    assert middle.interval[0] > middle.margin
    assert agreement.decisive.verdict is Verdict.DIFFERS


def test_a_turning_point_may_shift_by_its_margin_but_not_by_more() -> None:
    for layers, verdict in ((1, Verdict.EQUIVALENT), (2, Verdict.DIFFERS)):
        edges = (0, EDGES[1] + layers, *EDGES[2:])
        agreement = judge_boundaries(
            draw_curves(phase_curve(edges), 64, seed=100), BASELINE, paired=True, alpha_diff=ALPHA
        )
        first = agreement.shifts[0]
        assert (first.effect, first.verdict) == (float(layers), verdict)


@pytest.mark.slow
@pytest.mark.parametrize("mean", [phase_curve(), plateau_curve()], ids=["sharp", "plateaus"])
def test_unchanged_boundaries_raise_no_alarm(mean: FloatArray) -> None:
    for seed in range(10):
        baseline = draw_curves(mean, 48, seed=300 + seed, adjacent=0.9)
        same = judge_boundaries(add_rerun_noise(baseline, seed), baseline, paired=True, alpha_diff=ALPHA)
        fresh = judge_boundaries(draw_curves(mean, 48, seed=400 + seed), baseline, paired=False, alpha_diff=ALPHA)
        assert Verdict.DIFFERS not in (same.verdict, fresh.verdict)


def test_missing_half_heights_are_inconclusive() -> None:
    flat = np.full((40, 12), 0.3)
    agreement = judge_boundaries(flat, flat, paired=True, alpha_diff=ALPHA)
    assert agreement.verdict is Verdict.INCONCLUSIVE
    assert np.isnan(agreement.decisive.effect)
    assert agreement.decisive.n_needed is None


def test_weak_data_are_inconclusive_with_a_sufficient_number_of_samples() -> None:
    weak = draw_curves(phase_curve(), 40, seed=1, sd=0.25, adjacent=0.3)
    agreement = judge_boundaries(
        weak, draw_curves(phase_curve(), 40, seed=2, sd=0.25, adjacent=0.3), paired=False, alpha_diff=ALPHA
    )
    assert agreement.verdict is Verdict.INCONCLUSIVE
    assert agreement.decisive.verdict is Verdict.INCONCLUSIVE
    assert any(shift.n_needed is not None and shift.n_needed > 40 for shift in agreement.shifts)


def test_neither_order_nor_repeated_rows_change_the_verdict() -> None:
    measured, order = add_rerun_noise(BASELINE, 0, sd=0.02), np.random.default_rng(1).permutation(64)
    agreement = judge_boundaries(measured, BASELINE, paired=True, alpha_diff=ALPHA)
    assert judge_boundaries(measured[order], BASELINE[order], paired=True, alpha_diff=ALPHA) == agreement
    labels = [i // 2 for i in range(128)]
    twice = judge_boundaries(
        np.repeat(measured, 2, axis=0), np.repeat(BASELINE, 2, axis=0), paired=True, alpha_diff=ALPHA, clusters=labels
    )
    assert twice == agreement


def test_curves_of_other_models_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        judge_boundaries(BASELINE[:, :-1], BASELINE, paired=False, alpha_diff=ALPHA)
