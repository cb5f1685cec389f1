from __future__ import annotations

from math import comb

import numpy as np
import pytest

from harness.analysis.timing import TimingRatio, TimingVerdict, judge_slowdown, log_ratios, timing_ratio


def pairs(ratio: float, seed: int, n: int = 21) -> np.ndarray:
    """Return log ratios with the spread of paired timings and a few slow outliers."""
    rng = np.random.default_rng(seed)
    outliers = (rng.random(n) < 0.1) * rng.exponential(0.5, n)
    return np.log(ratio) + 0.03 * rng.standard_normal(n) + outliers


@pytest.mark.parametrize("n", [21, 22, 40])
def test_the_interval_ends_are_the_order_statistics_of_the_binomial(n: int) -> None:
    logs = np.random.default_rng(n).permutation(np.arange(n) / 100.0)
    ratio = timing_ratio(logs)

    def coverage(cut: int) -> float:
        """Return the two-sided probability that at most `cut` - 1 of n values fall on one side of the median."""
        return 1.0 - 2.0 * sum(comb(n, k) for k in range(cut)) / 2.0**n

    cut = max(c for c in range(1, n // 2) if coverage(c) >= 0.95)
    ordered = np.sort(logs)
    np.testing.assert_allclose(ratio.interval, np.exp([ordered[cut - 1], ordered[n - cut]]))
    assert ratio.ratio == pytest.approx(float(np.exp(np.median(logs))))
    assert (ratio.n, ratio.confidence) == (n, 0.95)


def test_the_interval_covers_the_true_ratio() -> None:
    ratio = [timing_ratio(np.log(1.05) + 0.03 * np.random.default_rng(s).standard_normal(21)) for s in range(200)]
    assert np.mean([f.interval[0] <= 1.05 <= f.interval[1] for f in ratio]) >= 0.93


def test_a_slowdown_raises_an_alarm_and_an_unchanged_time_does_not() -> None:
    same = [judge_slowdown(timing_ratio(pairs(1.06, seed)), 1.06).verdict for seed in range(200)]
    slow = [judge_slowdown(timing_ratio(pairs(1.06 * 1.25, seed)), 1.06).verdict for seed in range(200)]
    assert TimingVerdict.SLOWER not in same
    assert np.mean([verdict is TimingVerdict.WITHIN for verdict in same]) > 0.95
    assert np.mean([verdict is TimingVerdict.SLOWER for verdict in slow]) > 0.95


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((1.27, 1.40), TimingVerdict.SLOWER),
        ((1.20, 1.40), TimingVerdict.INCONCLUSIVE),
        ((1.00, 1.21), TimingVerdict.WITHIN),
    ],
)
def test_verdicts_compare_the_interval_with_the_factor(interval: tuple[float, float], verdict: TimingVerdict) -> None:
    ratio = judge_slowdown(TimingRatio(1.21, interval, 0.95, 21), 1.1)
    assert ratio.verdict is verdict
    assert ratio.effect == pytest.approx(1.1)
    assert ratio.interval == pytest.approx((interval[0] / 1.1, interval[1] / 1.1))
    assert (ratio.margin, ratio.n) == (1.15, 21)


def test_one_slow_pair_does_not_change_the_verdict() -> None:
    logs = np.random.default_rng(1).normal(0.05, 0.02, 25)
    spoilt = logs.copy()
    spoilt[int(np.argmax(logs))] = 5.0
    assert timing_ratio(spoilt) == timing_ratio(logs)


def test_log_ratios_are_paired() -> None:
    np.testing.assert_allclose(log_ratios([1.1, 2.0], [1.0, 4.0]), [np.log(1.1), np.log(0.5)])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: timing_ratio(np.zeros(20)), "at least 21"),
        (lambda: timing_ratio(np.full(21, np.nan)), "finite"),
        (lambda: log_ratios([1.0], [1.0, 2.0]), "in pairs"),
        (lambda: log_ratios([1.0], [0.0]), "positive"),
        (lambda: judge_slowdown(TimingRatio(1.0, (0.9, 1.1), 0.95, 21), 0.0), "positive"),
    ],
    ids=["few", "nan", "unpaired", "zero time", "zero ratio"],
)
def test_unusable_timings_are_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
