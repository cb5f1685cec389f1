"""What hooked inference costs beside plain inference, and whether that has grown."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy import stats

from harness.analysis.curves import FloatArray

MIN_TIMING_PAIRS = 21
SLOWDOWN_FACTOR = 1.15
#: Coverage asked of an interval.
CONFIDENCE = 0.95


class TimingVerdict(StrEnum):
    """Whether a ratio has grown beyond the declared factor."""

    SLOWER = "slower"
    WITHIN = "within"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class TimingRatio:
    """The median of hooked time over plain time with an interval from order statistics, of `n` pairs.

    `confidence` is the least coverage of the interval.
    """

    ratio: float
    interval: tuple[float, float]
    confidence: float
    n: int


@dataclass(frozen=True, slots=True)
class TimingFinding:
    """A ratio relative to the baseline's: `effect` with `interval`, judged against the factor `margin`."""

    verdict: TimingVerdict
    effect: float
    interval: tuple[float, float]
    confidence: float
    margin: float
    n: int


def log_ratios(hooked: npt.ArrayLike, plain: npt.ArrayLike) -> FloatArray:
    """Return log(hooked / plain) of paired wall times (pairs,), in seconds.

    Raises:
        ValueError: arrays of unequal length, or a time that is not positive and finite.
    """
    above, below = np.asarray(hooked, dtype=np.float64), np.asarray(plain, dtype=np.float64)
    if above.shape != below.shape or above.ndim != 1:
        raise ValueError(f"times must come in pairs, not {above.shape} hooked and {below.shape} plain.")
    if not ((above > 0.0) & (below > 0.0) & np.isfinite(above) & np.isfinite(below)).all():
        raise ValueError("every wall time must be positive and finite.")
    return np.asarray(np.log(above) - np.log(below), dtype=np.float64)


def timing_ratio(paired_log_ratios: npt.ArrayLike) -> TimingRatio:
    """Return the median ratio of alternating pairs, warm-ups dropped, with its interval.

    The interval's ends are order statistics of the log ratios: it assumes no distribution, and one slow pair moves
    neither it nor the median.

    Args:
        paired_log_ratios: (pairs,), log(hooked / plain).

    Raises:
        ValueError: fewer than 21 pairs, or a ratio that is not finite.
    """
    logs = np.asarray(paired_log_ratios, dtype=np.float64)
    if logs.ndim != 1 or len(logs) < MIN_TIMING_PAIRS or not np.isfinite(logs).all():
        raise ValueError(f"a timing ratio needs at least {MIN_TIMING_PAIRS} finite pairs, not shape {logs.shape}.")
    median, (low, high), _ = median_with_interval(logs)
    return TimingRatio(float(np.exp(median)), (float(np.exp(low)), float(np.exp(high))), CONFIDENCE, len(logs))


def median_with_interval(values: npt.ArrayLike) -> tuple[float, tuple[float, float], float]:
    """Return the median of however many values, an interval from order statistics, and what that interval covers.

    With fewer than six values their whole range covers less than 95 %: the coverage that comes back is the honest
    one, 1 - 2^(1 - n) for the range of n, and 0 of a single value.

    Args:
        values: (n,), of one population each.

    Raises:
        ValueError: no value, or one that is not finite.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    if n == 0 or not np.isfinite(ordered).all():
        raise ValueError(f"a median needs finite values, not {ordered.tolist()}.")
    # At most `cut` values fall outside on either side: P(Binomial(n, 1/2) <= cut) on each.
    cut = max(0, int(stats.binom.ppf((1.0 - CONFIDENCE) / 2.0, n, 0.5)) - 1)
    covered = float(max(0.0, 1.0 - 2.0 * stats.binom.cdf(cut, n, 0.5)))
    return float(np.median(ordered)), (float(ordered[cut]), float(ordered[n - 1 - cut])), covered


def judge_slowdown(timing: TimingRatio, baseline_ratio: float, factor: float = SLOWDOWN_FACTOR) -> TimingFinding:
    """Return whether a ratio has grown by more than `factor` over the baseline's.

    Slower where the interval's lower end exceeds factor x baseline, within where its upper end does not.

    Raises:
        ValueError: a baseline ratio or a factor that is not positive.
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
