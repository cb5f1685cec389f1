"""Whether a calibrated profile is worth keeping as a baseline: quiet with nothing changed, and able to find a fault."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from harness.analysis.power import Power, curve_power, power_refusal, recall_power
from harness.baselines.margin_table import boundary_values, margin_table, margin_values
from harness.data.datasets import find_dataset
from harness.judgement.phases import CLAIM_RECALL
from harness.judgement.regression import ALPHA_DIFF
from harness.measurement.conditions import Calibrated
from harness.profile.measures import MEASURES
from harness.profile.profile import Profile, as_floats

#: What the rule finds against a baseline with so many times the samples.
Simulation = Callable[[float], Power]


def simulations(profile: Profile, calibrated: Calibrated) -> tuple[Simulation, ...]:
    """The simulated powers of a baseline to be: of the inter-modal similarity, and of recall if it was measured.

    A dataset for regression only is asked no claim, so its samples need not be enough to decide on recall.
    """
    margins = margin_values(margin_table(profile, calibrated.calibration))
    curve = partial(
        _curve_power,
        profile,
        noise=calibrated.largest_changes("inter"),
        margin=margins["inter"],
        boundaries=boundary_values(margins),
    )
    if profile.no_recall or find_dataset(profile.dataset).regression_only:
        return (curve,)
    return curve, partial(_recall_power, profile, noise=calibrated.largest_changes(CLAIM_RECALL))


def power_problem(simulated: tuple[Simulation, ...], powers: tuple[Power, ...]) -> str | None:
    """Why a baseline of these powers is not worth writing, with what to do; None where it is."""
    for simulate, power in zip(simulated, powers, strict=True):
        problem = power_refusal(power, simulate)
        if problem:
            return problem
    return None


def power_record(powers: tuple[Power, ...]) -> dict[str, Any]:
    """Powers as JSON types, by measure."""
    return {
        power.measure: {
            "equivalent with nothing changed": power.equivalent,
            f"found: {power.change}": power.found,
            "draws": power.draws,
        }
        for power in powers
    }


def _curve_power(profile: Profile, size: float, **options: Any) -> Power:
    return curve_power(
        as_floats(profile["inter"]), alpha_diff=ALPHA_DIFF, clusters=profile.clusters, size=size, **options
    )


def _recall_power(profile: Profile, size: float, **options: Any) -> Power:
    hits = profile.arrays["hits"][:, :, MEASURES[CLAIM_RECALL].column]
    words = profile.arrays["words"]
    return recall_power(hits, words, alpha_diff=ALPHA_DIFF, clusters=profile.clusters, size=size, **options)
