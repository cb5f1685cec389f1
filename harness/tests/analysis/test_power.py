from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from harness.analysis.power import MIN_DETECTED, MIN_EQUIVALENT, Power, curve_power, power_refusal, recall_power
from harness.analysis.power import _shift_by as shift_by
from harness.lab.simulation.synthetic import shift_curve
from harness.tests.support.synthetic_curves import draw_curves, draw_recalls, phase_curve

ALPHA = 0.01 / 76
SHORT = phase_curve((0, 3, 6, 9, 12), (0.1, 0.5, 0.2, 0.7, 0.3))
MARGIN = 0.03


def test_the_shift_is_that_of_the_synthetic_curves() -> None:
    rows = draw_curves(phase_curve(), 5, seed=0)
    for layers in (1.0, 2.0):
        expected = np.stack([shift_curve(row, layers) for row in rows])
        np.testing.assert_allclose(rows @ shift_by(31, layers), expected, atol=1e-12)


@pytest.mark.slow
def test_a_baseline_with_low_noise_and_enough_samples_has_power() -> None:
    rng = np.random.default_rng(0)
    curve = curve_power(
        draw_curves(SHORT, 96, seed=1),
        2e-3 * rng.standard_normal((96, 13)),
        margin=MARGIN,
        alpha_diff=ALPHA,
        draws=12,
    )
    assert (curve.equivalent, curve.detected, curve.samples, curve.draws) == (1.0, 1.0, 96, 12)
    recall = recall_power(np.round(8 * draw_recalls(128, seed=2)), np.full(128, 8), alpha_diff=ALPHA, draws=12)
    assert (recall.equivalent, recall.detected) == (1.0, 1.0)
    for power in (curve, recall):
        assert power.is_sufficient
        assert power_refusal(power, lambda size: pytest.fail("nothing to simulate")) is None


@pytest.mark.slow
def test_equivalence_under_noise_has_its_closed_form() -> None:
    """With noise that shifts whole curves, the mean error is normal; shape and boundaries do not change."""
    n, draws = 50, 80
    deviation = MARGIN * np.sqrt(n) / (stats.t.isf(0.025, n - 1) + 0.6)
    noise = deviation * np.random.default_rng(3).standard_normal((4000, 1)) * np.ones(13)
    power = curve_power(
        draw_curves(SHORT, n, seed=4, sd=1e-3), noise - noise.mean(), margin=MARGIN, alpha_diff=ALPHA, draws=draws
    )
    expected = 2.0 * stats.norm.cdf(0.6) - 1.0
    assert power.equivalent == pytest.approx(expected, abs=3.5 * np.sqrt(expected * (1.0 - expected) / draws))
    assert not power.is_sufficient


@pytest.mark.slow
def test_few_noisy_samples_are_refused_with_both_shares_and_a_remedy() -> None:
    noise = 0.15 * np.random.default_rng(5).standard_normal((500, 1)) * np.ones(13)
    curves = draw_curves(SHORT, 40, seed=6)

    def simulate(size: float = 1.0) -> Power:
        return curve_power(curves, noise - noise.mean(), margin=MARGIN, alpha_diff=ALPHA, size=size, draws=10)

    power = simulate()
    refusal = power_refusal(power, simulate)
    assert refusal is not None
    assert refusal.startswith(
        "a baseline of inter-modal similarity with 40 samples has too little power: of 10 simulated"
    )
    assert f"without a change {power.equivalent:.0%} were equivalent (95% required)" in refusal
    assert f"with a shift by 2 layers {power.detected:.0%} were detected (80% required)" in refusal
    assert "3 times as many would not suffice: measure with less noise" in refusal


def test_the_remedy_is_the_smallest_sufficient_number_of_samples() -> None:
    poor = Power("recall", "a loss", 1.0, 0.79, 64, 40)
    tried: list[float] = []

    def simulate(size: float) -> Power:
        tried.append(size)
        return replace(poor, detected=0.3 * size, samples=round(64 * size))

    refusal = power_refusal(poor, simulate)
    assert refusal is not None
    assert refusal.endswith("; record it with --phase-samples 192.")
    assert tried == [1.5, 2.0, 3.0]


@pytest.mark.parametrize(
    ("equivalent", "found", "enough"),
    [
        (MIN_EQUIVALENT, MIN_DETECTED, True),
        (MIN_EQUIVALENT - 0.01, 1.0, False),
        (1.0, MIN_DETECTED - 0.01, False),
        (1.0, None, True),
    ],
)
def test_sufficient_power_needs_both_shares(equivalent: float, found: float | None, enough: bool) -> None:
    assert Power("recall", "a loss", equivalent, found, 64, 40).is_sufficient is enough


def test_noise_beyond_the_margin_is_never_equivalent_however_many_samples() -> None:
    noise = np.where(np.arange(13) == 6, 2.0 * MARGIN, 0.0) * np.ones((40, 1))
    curves = draw_curves(SHORT, 40, seed=7, sd=0.01)
    for size in (1.0, 4.0):
        power = curve_power(curves, noise, margin=MARGIN, alpha_diff=ALPHA, size=size, draws=5)
        assert power.equivalent == 0.0
        assert power.samples == round(40 * size)


def test_a_loss_of_recall_is_detected_with_many_words_per_sample_only() -> None:
    rng = np.random.default_rng(8)
    late = np.array([0.0, 0.0, 0.0, 0.05, 0.5])
    for n, words, found in ((160, 40, 1.0), (32, 1, 0.0)):
        power = recall_power(rng.binomial(words, late, (n, 5)), np.full(n, words), alpha_diff=ALPHA, draws=10)
        assert (power.detected, power.equivalent) == (found, 1.0)


def test_a_loss_of_recall_needs_recall() -> None:
    hits = np.random.default_rng(9).binomial(10, 0.05, (64, 6))
    power = recall_power(hits, np.full(64, 10), alpha_diff=ALPHA, draws=5)
    assert (power.detected, power.is_sufficient) == (None, True)


def test_recall_of_few_samples_with_noise_is_not_equivalent() -> None:
    """The rule adds one sample that loses half its words: (0.5 + 0.5 t) / n exceeds the margin 0.02 up to n = 75."""
    rng = np.random.default_rng(10)
    noise = np.zeros((300, 5))
    noise[:, 2] = 1e-3 * rng.standard_normal(300)
    hits, words = rng.binomial(20, 0.5, (300, 5)), np.full(300, 20)
    found = [
        recall_power(hits, words, noise, alpha_diff=ALPHA, size=n / 300, draws=4).equivalent for n in (60, 70, 80, 100)
    ]
    assert found == [0.0, 0.0, 1.0, 1.0]


def test_samples_with_one_image_are_drawn_together() -> None:
    curves = draw_curves(SHORT, 36, seed=11)
    noise = 5e-3 * np.random.default_rng(12).standard_normal(curves.shape)
    hits = np.random.default_rng(13).binomial(6, 0.4, (36, 13))
    labels = [i // 2 for i in range(72)]
    options = {"alpha_diff": ALPHA, "draws": 6}
    one = curve_power(curves, noise, margin=MARGIN, **options)
    two = curve_power(
        np.repeat(curves, 2, axis=0), np.repeat(noise, 2, axis=0), margin=MARGIN, clusters=labels, **options
    )
    assert two == replace(one, samples=72)
    recall = recall_power(np.repeat(hits, 2, axis=0), np.full(72, 6), clusters=labels, **options)
    assert recall.samples == 72
    assert recall == recall_power(np.repeat(hits, 2, axis=0), np.full(72, 6), clusters=labels, **options)


def test_impossible_simulations_are_refused() -> None:
    curves = draw_curves(SHORT, 40, seed=0)
    with pytest.raises(ValueError, match="at least 7 points"):
        curve_power(curves[:, :6], margin=MARGIN, alpha_diff=ALPHA)
    with pytest.raises(ValueError, match="does not match curves with 13 points"):
        curve_power(curves, np.zeros((4, 5)), margin=MARGIN, alpha_diff=ALPHA)
    with pytest.raises(ValueError, match="3 cluster labels for 40 samples"):
        curve_power(curves, margin=MARGIN, alpha_diff=ALPHA, boundaries=[1.0] * 7, clusters=[1, 2, 3])
    with pytest.raises(ValueError, match="positive size"):
        curve_power(curves, margin=MARGIN, alpha_diff=ALPHA, size=0.0)
    with pytest.raises(ValueError, match="hits between 0 and that number"):
        recall_power(np.full((40, 5), 3), np.full(40, 2), alpha_diff=ALPHA)
