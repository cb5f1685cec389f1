"""Per-sample tolerances of a run against its baseline: that of the verdict, and that which locates a change."""

from __future__ import annotations

from dataclasses import replace

from harness.analysis.calibration import FULL_PRECISION
from harness.analysis.margins import CPU_TOLERANCE, CURVE_TOLERANCE, HIT_TOLERANCE, Tolerance
from harness.baselines.store import Baseline
from harness.profile.measures import MEASURES
from harness.profile.profile import Profile

#: A change counts as located where a sample moved by more than so many times the noise.
LOCATING_FACTOR = 4.0
#: The least noise that is assumed of a sample: calibration on one machine does not know the kernels of the next.
MIN_NOISE = 2.5e-6


def calibrated_tolerance(now: Profile, baseline: Baseline, measure: str) -> Tolerance | None:
    """Return the tolerance within which a sample of a measure is the baseline's.

    Between two measurements in float32 or wider on CPUs it is 5e-5, otherwise 1e-3, and more where the calibration of
    the baseline needs it.

    Args:
        now: what was measured.
        baseline: what it is held against.
        measure: a name of `measures.MEASURES`.

    Returns:
        None if one side is in 16 bits and no calibration tells how far these move a sample.
    """
    here, then = now.environment, baseline.profile.environment
    declared = CPU_TOLERANCE if _exact(now, baseline) else CURVE_TOLERANCE
    if baseline.same_run and here == then:
        # Both sides were measured in one run here, so there is no noise of another environment to allow for.
        tolerance: Tolerance | None = declared
    else:
        device = "" if _exact(now, baseline) else None
        tolerance = baseline.calibration.tolerance(
            measure, half_precision=_any_half_precision(now, baseline), declared=declared, device=device
        )
    return None if tolerance is None else replace(tolerance, noise=sample_noise(now, baseline, measure))


def sample_tolerance(now: Profile, baseline: Baseline, measure: str) -> Tolerance:
    """Return the tolerance of a sample of a measure: the calibrated one, else the declared one."""
    return calibrated_tolerance(now, baseline, measure) or CURVE_TOLERANCE


def locating_tolerance(now: Profile, baseline: Baseline, measure: str) -> Tolerance:
    """Return the tolerance up to which a measure counts as unchanged when a change is located.

    It is four times the noise of a sample, at least 1e-5, whatever the tolerance of the verdict is: a change shows in
    the first layers long before it grows beyond that. Where the noise is not known, and in 16 bits, it is that of the
    verdict.
    """
    if MEASURES[measure].kind.margin is None:
        return HIT_TOLERANCE
    tolerance = sample_tolerance(now, baseline, measure)
    if tolerance.noise is None or _any_half_precision(now, baseline):
        return tolerance
    noise = tolerance.noise
    return replace(tolerance, amount=LOCATING_FACTOR * noise, reason=f"{LOCATING_FACTOR:g} x the noise {noise:.2g}")


def sample_noise(now: Profile, baseline: Baseline, measure: str) -> float | None:
    """Return how far a sample of a measure moves where nothing but the environment changes, at least 2.5e-6.

    Returns:
        None if the calibration does not tell, and the two are not both in float32 or wider on CPUs.
    """
    here, then = now.environment, baseline.profile.environment
    device = "" if here.device == then.device else here.device
    noise = baseline.calibration.sample_noise(measure, half_precision=_any_half_precision(now, baseline), device=device)
    if noise is None and not _exact(now, baseline):
        return None
    return max(noise or 0.0, MIN_NOISE)


def _exact(now: Profile, baseline: Baseline) -> bool:
    """True if both sides were measured in float32 or wider on a CPU."""
    sides = (now.environment, baseline.profile.environment)
    return all(side.device == "cpu" and side.dtype in FULL_PRECISION for side in sides)


def _any_half_precision(now: Profile, baseline: Baseline) -> bool:
    """True if one of the two is in a type narrower than float32."""
    return bool({"bfloat16", "float16"} & {now.environment.dtype, baseline.profile.environment.dtype})
