"""Per-sample tolerances between a run and its baseline, for the verdict and for locating a change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from harness.analysis.calibration import FULL_PRECISION
from harness.analysis.margins import CPU_TOLERANCE, CURVE_TOLERANCE, HIT_TOLERANCE, Tolerance
from harness.baselines.store import Baseline
from harness.profile.measures import MEASURES
from harness.profile.profile import Profile

#: A change is located at the first layer where a sample changed by more than this multiple of the noise.
LOCATING_FACTOR = 4.0
#: Minimum noise of a sample, because a calibration on one machine does not cover the kernels of another.
MIN_NOISE = 2.5e-6


def calibrated_tolerance(measured: Profile, baseline: Baseline, measure: str) -> Tolerance | None:
    """Return the tolerance within which a sample reproduces the baseline.

    It is 5e-5 if both sides use float32 or wider on a CPU, otherwise 1e-3; for a measure without a bound, that share
    of its scale in the baseline. The calibration of the baseline can raise it.

    Args:
        measured: the measured profile.
        baseline: the baseline to compare it with.
        measure: a name in `measures.MEASURES`.

    Returns:
        None if one side is in 16 bits and no calibration measured their noise.
    """
    environment, baseline_environment = measured.environment, baseline.profile.environment
    declared = _scaled(CPU_TOLERANCE if _exact(measured, baseline) else CURVE_TOLERANCE, baseline, measure)
    if baseline.same_run and environment == baseline_environment:
        # Both sides were measured in one run, so no noise between environments is added.
        tolerance: Tolerance | None = declared
    else:
        device = "" if _exact(measured, baseline) else None
        tolerance = baseline.calibration.tolerance(
            measure, half_precision=_any_half_precision(measured, baseline), declared=declared, device=device
        )
    return None if tolerance is None else replace(tolerance, noise=sample_noise(measured, baseline, measure))


def sample_tolerance(measured: Profile, baseline: Baseline, measure: str) -> Tolerance:
    """Return the calibrated tolerance of a sample, or the declared tolerance if there is none."""
    return calibrated_tolerance(measured, baseline, measure) or _scaled(CURVE_TOLERANCE, baseline, measure)


def locating_tolerance(measured: Profile, baseline: Baseline, measure: str) -> Tolerance:
    """Return the tolerance within which a measure counts as unchanged when a change is located.

    It is four times the noise of a sample, at least 1e-5. It can be tighter than the tolerance of the verdict, because
    a change starts small in early layers. If the noise is unknown, or in 16 bits, it is the tolerance of the verdict.
    """
    if MEASURES[measure].kind.margin is None:
        return HIT_TOLERANCE
    tolerance = sample_tolerance(measured, baseline, measure)
    if tolerance.noise is None or _any_half_precision(measured, baseline):
        return tolerance
    noise = tolerance.noise
    return replace(tolerance, amount=LOCATING_FACTOR * noise, reason=f"{LOCATING_FACTOR:g} x the noise {noise:.2g}")


def sample_noise(measured: Profile, baseline: Baseline, measure: str) -> float | None:
    """Return the largest change of a sample between environments, at least 2.5e-6 of its scale.

    Returns:
        None if it is not calibrated, unless both sides use float32 or wider on a CPU.
    """
    environment, baseline_environment = measured.environment, baseline.profile.environment
    device = "" if environment.device == baseline_environment.device else environment.device
    noise = baseline.calibration.sample_noise(
        measure, half_precision=_any_half_precision(measured, baseline), device=device
    )
    if noise is None and not _exact(measured, baseline):
        return None
    return max(noise or 0.0, MIN_NOISE * _scale(baseline, measure))


def _scaled(tolerance: Tolerance, baseline: Baseline, measure: str) -> Tolerance:
    return replace(tolerance, amount=float(np.max(tolerance.amount)) * _scale(baseline, measure))


def _scale(baseline: Baseline, measure: str) -> float:
    """Return the largest mean of the baseline's arrays that scale a measure, at least 1."""
    names = [name for name in MEASURES[measure].kind.scale if name in baseline.profile.names]
    means = [np.nanmean(baseline.profile[name], 0, dtype=np.float64) for name in names]
    return max([1.0, *(float(np.abs(mean).max()) for mean in means)])


def _exact(measured: Profile, baseline: Baseline) -> bool:
    """True if both sides were measured in float32 or wider on a CPU."""
    sides = (measured.environment, baseline.profile.environment)
    return all(side.device == "cpu" and side.dtype in FULL_PRECISION for side in sides)


def _any_half_precision(measured: Profile, baseline: Baseline) -> bool:
    """True if either side was measured in a type narrower than float32."""
    return bool({"bfloat16", "float16"} & {measured.environment.dtype, baseline.profile.environment.dtype})
