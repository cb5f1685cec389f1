"""Cost of hooked inference relative to plain inference, compared with the baseline."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy import special

from harness.analysis.curves import FloatArray

MIN_TIMING_PAIRS = 21
SLOWDOWN_FACTOR = 1.15
#: Required coverage of an interval.
CONFIDENCE = 0.95


class TimingVerdict(StrEnum):
    """Result of the slowdown test against the declared factor."""

    SLOWER = "slower"
    WITHIN = "within"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class TimingRatio:
    """The median of hooked time over plain time, from `n` pairs, with an interval from order statistics.

    `confidence` is the minimum coverage of the interval.
    """

    ratio: float
    interval: tuple[float, float]
    confidence: float
    n: int


@dataclass(frozen=True, slots=True)
class TimingFinding:
    """A ratio divided by the baseline's: `effect` with `interval`, compared with the factor `margin`."""

    verdict: TimingVerdict
    effect: float
    interval: tuple[float, float]
    confidence: float
    margin: float
    n: int


def log_ratios(hooked: npt.ArrayLike, plain: npt.ArrayLike) -> FloatArray:
    """Return log(hooked / plain) of paired wall times (pairs,), in seconds.

    Raises:
        ValueError: the lengths differ, or a time is not positive and finite.
    """
    above, below = np.asarray(hooked, dtype=np.float64), np.asarray(plain, dtype=np.float64)
    if above.shape != below.shape or above.ndim != 1:
        raise ValueError(f"times must come in pairs, not {above.shape} hooked and {below.shape} plain.")
    if not ((above > 0.0) & (below > 0.0) & np.isfinite(above) & np.isfinite(below)).all():
        raise ValueError("every wall time must be positive and finite.")
    return np.asarray(np.log(above) - np.log(below), dtype=np.float64)


def timing_ratio(paired_log_ratios: npt.ArrayLike) -> TimingRatio:
    """Return the median ratio of alternating pairs, without the warm-ups, and its interval.

    The ends of the interval are order statistics of the log ratios. They assume no distribution, and one slow pair
    affects neither them nor the median.

    Args:
        paired_log_ratios: (pairs,), log(hooked / plain).

    Raises:
        ValueError: there are fewer than 21 pairs, or a ratio is not finite.
    """
    logs = np.asarray(paired_log_ratios, dtype=np.float64)
    if logs.ndim != 1 or len(logs) < MIN_TIMING_PAIRS or not np.isfinite(logs).all():
        raise ValueError(f"a timing ratio needs at least {MIN_TIMING_PAIRS} finite pairs, not shape {logs.shape}.")
    median, (low, high), _ = median_with_interval(logs)
    return TimingRatio(float(np.exp(median)), (float(np.exp(low)), float(np.exp(high))), CONFIDENCE, len(logs))


def median_with_interval(values: npt.ArrayLike) -> tuple[float, tuple[float, float], float]:
    """Return the median of any number of values, an interval from order statistics, and the interval's coverage.

    With fewer than six values the full range covers less than 95 %. The returned coverage is then the actual one:
    1 - 2^(1 - n), which is 0 for a single value.

    Args:
        values: (n,), from the same population.

    Raises:
        ValueError: there is no value, or a value is not finite.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    if n == 0 or not np.isfinite(ordered).all():
        raise ValueError(f"a median needs finite values, not {ordered.tolist()}.")
    # At most `excluded` values fall outside on either side: P(Binomial(n, 1/2) <= excluded) on each.
    tails = special.bdtr(np.arange(n + 1), n, 0.5)
    excluded = max(0, int(np.searchsorted(tails, (1.0 - CONFIDENCE) / 2.0)) - 1)
    coverage = max(0.0, 1.0 - 2.0 * float(tails[excluded]))
    return float(np.median(ordered)), (float(ordered[excluded]), float(ordered[n - 1 - excluded])), coverage


def judge_slowdown(timing: TimingRatio, baseline_ratio: float, factor: float = SLOWDOWN_FACTOR) -> TimingFinding:
    """Test if a ratio exceeds the baseline's by more than `factor`.

    Slower: the interval's lower end exceeds factor x baseline. Within: its upper end does not.

    Raises:
        ValueError: a baseline ratio or a factor is not positive.
    """
    if not (baseline_ratio > 0.0 and factor > 0.0):
        raise ValueError(f"ratio and factor must be positive, not {baseline_ratio} and {factor}.")
    low, high = timing.interval[0] / baseline_ratio, timing.interval[1] / baseline_ratio
    verdict = TimingVerdict.INCONCLUSIVE
    if low > factor:
        verdict = TimingVerdict.SLOWER
    elif high <= factor:
        verdict = TimingVerdict.WITHIN
    return TimingFinding(verdict, timing.ratio / baseline_ratio, (low, high), timing.confidence, factor, timing.n)
