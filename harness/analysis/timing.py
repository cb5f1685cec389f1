"""What hooked inference costs beside plain inference, and whether that has grown."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import cast

import numpy as np
import numpy.typing as npt
from scipy import stats

from harness.analysis.curves import FloatArray

LEAST_TIMING_PAIRS = 21
SLOWDOWN_FACTOR = 1.15


class TimingVerdict(StrEnum):
    """Whether a ratio has grown beyond the declared factor."""

    SLOWER = "slower"
    WITHIN = "within"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class TimingRatio:
    """The median of hooked time over plain time with an interval from order statistics, of `n` pairs."""

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
    """Returns log(hooked / plain) of paired wall times (pairs,), in seconds.

    Raises:
        ValueError: arrays of unequal length, or a time that is not positive and finite.
    """
    above, below = np.asarray(hooked, dtype=np.float64), np.asarray(plain, dtype=np.float64)
    if above.shape != below.shape or above.ndim != 1:
        raise ValueError(f"times must come in pairs, not {above.shape} hooked and {below.shape} plain.")
    if not ((above > 0.0) & (below > 0.0) & np.isfinite(above) & np.isfinite(below)).all():
        raise ValueError("every wall time must be positive and finite.")
    return np.asarray(np.log(above) - np.log(below), dtype=np.float64)


def timing_ratio(paired_log_ratios: npt.ArrayLike, confidence: float = 0.95) -> TimingRatio:
    """Returns the median ratio of alternating pairs, warm-ups dropped, with its interval.

    The interval's ends are order statistics of the log ratios: it assumes no distribution, and one slow pair moves
    neither it nor the median.

    Args:
        paired_log_ratios: (pairs,), log(hooked / plain).
        confidence: least coverage of the interval.

    Raises:
        ValueError: fewer than 21 pairs, or a ratio that is not finite.
    """
    logs = np.asarray(paired_log_ratios, dtype=np.float64)
    if logs.ndim != 1 or len(logs) < LEAST_TIMING_PAIRS or not np.isfinite(logs).all():
        raise ValueError(f"a timing ratio needs at least {LEAST_TIMING_PAIRS} finite pairs, not shape {logs.shape}.")
    found = stats.quantile_test(logs, p=0.5).confidence_interval(confidence_level=confidence)
    low, high = cast("tuple[float, float]", found)
    return TimingRatio(
        ratio=float(np.exp(np.median(logs))),
        interval=(float(np.exp(low)), float(np.exp(high))),
        confidence=confidence,
        n=len(logs),
    )


def slower_than(timing: TimingRatio, baseline_ratio: float, factor: float = SLOWDOWN_FACTOR) -> TimingFinding:
    """Returns whether a ratio has grown by more than `factor` over the baseline's.

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
    return TimingFinding(
        verdict=verdict,
        effect=timing.ratio / baseline_ratio,
        interval=(low, high),
        confidence=timing.confidence,
        margin=factor,
        n=timing.n,
    )
