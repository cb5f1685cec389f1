"""The power check of a calibrated baseline: equivalent if nothing changes, different if a fault is simulated."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from harness.analysis.power import Power, curve_power, power_refusal, recall_power
from harness.baselines.margin_table import boundary_margin_values, margin_table, margin_values
from harness.baselines.store import BaselineError
from harness.data.datasets import find_dataset
from harness.judgement.phases import CLAIM_RECALL
from harness.judgement.regression import ALPHA_DIFF
from harness.measurement.conditions import CalibrationResult
from harness.profile.measures import MEASURES
from harness.profile.profile import Profile, as_floats


def simulated_power(profile: Profile, calibrated: CalibrationResult) -> dict[str, Any]:
    """Return the simulated power of a new baseline as JSON types, for inter-modal similarity and recall.

    A dataset for regression only has no claims, so its samples need no power for recall.

    Raises:
        BaselineError: the power is too small to write the baseline; the message names the remedy.
    """
    margins = margin_values(margin_table(profile, calibrated.calibration))
    simulate: Callable[..., Power] = partial(
        curve_power,
        as_floats(profile["inter"]),
        calibrated.largest_changes("inter"),
        margin=margins["inter"],
        boundaries=boundary_margin_values(margins),
    )
    simulations = [simulate]
    if not (profile.no_recall or find_dataset(profile.dataset).regression_only):
        hits = profile.arrays["hits"][:, :, MEASURES[CLAIM_RECALL].column]
        noise = calibrated.largest_changes(CLAIM_RECALL)
        simulations.append(partial(recall_power, hits, profile.arrays["words"], noise))
    simulations = [partial(simulate, alpha_diff=ALPHA_DIFF, clusters=profile.clusters) for simulate in simulations]
    powers = [simulate() for simulate in simulations]
    for power, simulate in zip(powers, simulations, strict=True):
        if problem := power_refusal(power, partial(_simulate_size, simulate)):
            raise BaselineError(f"no baseline of {profile.pair} was written: {problem}")
    return {
        power.measure: {
            "equivalent with nothing changed": power.equivalent,
            f"detected: {power.change}": power.detected,
            "draws": power.draws,
        }
        for power in powers
    }


def _simulate_size(simulate: Callable[..., Power], size: float) -> Power:
    return simulate(size=size)
