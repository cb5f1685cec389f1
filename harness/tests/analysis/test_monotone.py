from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from harness.analysis.curves import cluster_means, summarise
from harness.analysis.monotone import Monotonicity, Presence, judge_monotonicity, judge_phase_rise
from harness.analysis.simultaneous import simultaneous_bound
from harness.tests.support.synthetic_curves import draw_curves, phase_curve


def literal_verdict(x: np.ndarray, first: int, last: int, direction: int, margin: float) -> Monotonicity:
    """Return the verdict of the rule in two loops, with a separate paired t statistic for every pair of layers."""
    inside = x[:, first : last + 1]
    n = len(inside)
    pairs = np.triu_indices(inside.shape[1], 1)
    critical = simultaneous_bound(np.cov(inside.T), n - 1, 0.01, pairs=pairs, two_sided=False)
    lower, upper = [], []
    for s, t in zip(*pairs, strict=True):
        drops = -direction * (inside[:, t] - inside[:, s])
        error = drops.std(ddof=1) / np.sqrt(n)
        lower.append(drops.mean() - critical * error)
        upper.append(drops.mean() + stats.t.isf(0.025, n - 1) * error)
    if max(lower) > margin:
        return Monotonicity.VIOLATED
    return Monotonicity.MONOTONE if max(upper) < margin else Monotonicity.INCONCLUSIVE


def test_verdicts_are_those_of_the_literal_rule() -> None:
    seen = set()
    for seed in range(24):
        dip = (0.0, 0.03, 0.06)[seed % 3]
        x = draw_curves(phase_curve((0, 5, 7, 12), (0.1, 0.4, 0.4 - dip, 0.7)), (12, 40)[seed % 2], seed, sd=0.1)
        finding = judge_monotonicity(summarise(x), 1, 11, 1, 0.025)
        assert finding.verdict is literal_verdict(x, 1, 11, 1, 0.025)
        mirrored = judge_monotonicity(summarise(-x), 1, 11, -1, 0.025)
        assert (mirrored.verdict, mirrored.layers) == (finding.verdict, finding.layers)
        assert mirrored.effect == pytest.approx(finding.effect)
        seen.add(finding.verdict)
    assert seen == set(Monotonicity)


def test_a_reversal_inside_a_phase_is_located() -> None:
    x = draw_curves(phase_curve((0, 5, 9, 20), (0.1, 0.4, 0.3, 0.8)), 64, seed=0)
    finding = judge_monotonicity(summarise(x), 0, 20, 1, 0.035)
    assert (finding.verdict, finding.layers) == (Monotonicity.VIOLATED, (5, 9))
    assert finding.interval[0] > 0.035
    assert finding.effect == pytest.approx(x[:, 5].mean() - x[:, 9].mean())
    assert (finding.n, finding.margin) == (64, 0.035)


def test_straight_and_flat_curves_are_monotone_but_a_flat_one_does_not_rise() -> None:
    straight, flat = (
        draw_curves(np.linspace(0.1, 0.6, 13), 64, 1, sd=0.02),
        draw_curves(np.full(13, 0.3), 64, 2, sd=0.02),
    )
    assert judge_monotonicity(summarise(straight), 0, 12, 1, 0.025).verdict is Monotonicity.MONOTONE
    assert judge_monotonicity(summarise(flat), 0, 12, 1, 0.025).verdict is Monotonicity.MONOTONE
    assert judge_phase_rise(straight, 0, 12, 1, 0.05).verdict is Presence.PRESENT
    assert judge_phase_rise(straight, 0, 12, -1, 0.05).verdict is Presence.ABSENT
    assert judge_phase_rise(flat, 0, 12, 1, 0.05).verdict is Presence.ABSENT


def test_weak_data_are_inconclusive() -> None:
    x = draw_curves(phase_curve((0, 6, 12), (0.1, 0.16, 0.14)), 6, seed=0, sd=0.2, adjacent=0.5)
    assert judge_monotonicity(summarise(x), 0, 12, 1, 0.02).verdict is Monotonicity.INCONCLUSIVE
    assert judge_phase_rise(x, 0, 6, 1, 0.05).verdict is Presence.INCONCLUSIVE


def test_a_flat_autocorrelated_curve_is_never_called_violated() -> None:
    verdicts = [
        judge_monotonicity(summarise(draw_curves(np.full(13, 0.3), 32, seed)), 0, 12, 1, 0.02).verdict
        for seed in range(40)
    ]
    assert Monotonicity.VIOLATED not in verdicts


def test_the_rise_has_its_paired_interval() -> None:
    x = draw_curves(phase_curve(), 40, seed=7)
    finding = judge_phase_rise(x, 7, 15, -1, 0.05, alpha=0.05)
    change = x[:, 7] - x[:, 15]
    interval = stats.ttest_1samp(change, 0.0).confidence_interval(0.95)
    np.testing.assert_allclose(finding.interval, (interval.low, interval.high))
    assert finding.effect == pytest.approx(change.mean())
    assert finding.n == 40
    wider = judge_phase_rise(x, 7, 15, -1, 0.05, critical=5.0)
    assert wider.interval[1] - wider.effect == pytest.approx(5.0 * change.std(ddof=1) / np.sqrt(40))


def test_the_rise_of_identical_rows_is_exact() -> None:
    finding = judge_phase_rise(np.tile([0.0, 1.0, 0.5], (8, 1)), 0, 1, 1, 0.2)
    assert (finding.interval, finding.verdict) == ((1.0, 1.0), Presence.PRESENT)


def test_clusters_are_averaged_first() -> None:
    x = draw_curves(phase_curve(), 30, seed=3)
    doubled, labels = np.repeat(x, 2, axis=0), [i // 2 for i in range(60)]
    assert judge_phase_rise(cluster_means(doubled, labels), 0, 7, 1, 0.05) == judge_phase_rise(x, 0, 7, 1, 0.05)
    assert judge_monotonicity(summarise(doubled, labels), 0, 7, 1, 0.05) == judge_monotonicity(
        summarise(x), 0, 7, 1, 0.05
    )
    assert judge_phase_rise(doubled, 0, 7, 1, 0.05).n == 60


@pytest.mark.parametrize(("first", "last", "direction"), [(3, 3, 1), (4, 2, 1), (-1, 2, 1), (0, 13, 1), (0, 5, 0)])
def test_invalid_intervals_are_refused(first: int, last: int, direction: int) -> None:
    x = draw_curves(np.full(13, 0.3), 8, 0)
    with pytest.raises(ValueError, match=r"not an interval|direction"):
        judge_monotonicity(summarise(x), first, last, direction, 0.02)
    with pytest.raises(ValueError, match=r"not an interval|direction"):
        judge_phase_rise(x, first, last, direction, 0.02)


def test_a_margin_must_be_positive() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        judge_monotonicity(summarise(draw_curves(np.full(13, 0.3), 8, 0)), 0, 5, 1, 0.0)
