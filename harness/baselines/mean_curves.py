"""The mean curves of a profile as JSON, for the file of a baseline and for records."""

from __future__ import annotations

from typing import Any

from harness.profile.measures import MEASURES, RECALL, chance_measure
from harness.profile.profile import Profile
from harness.storage.json_text import round_numbers


def shown_measures(profile: Profile) -> tuple[str, ...]:
    """Return the measures, followed by the similarities after the final norm and the recall by chance."""
    post = (name for name in profile.arrays if name.startswith("post_norm_"))
    chance = (chance_measure(name) for name, measure in MEASURES.items() if measure.kind is RECALL)
    return profile.measured((*MEASURES, *post, *chance))


def mean_curves(profile: Profile) -> dict[str, Any]:
    """Return `means` by measure, `controls` (means by control and curve) and `control_samples` (counts) for JSON."""
    return {
        "means": {name: round_numbers(profile[name].mean(0)) for name in shown_measures(profile)},
        "controls": {
            control: {name: round_numbers(array.mean(0)) for name, array in curves.items()}
            for control, curves in profile.controls.items()
        },
        "control_samples": {control: len(profile.samples_of(control)) for control in profile.controls},
    }
