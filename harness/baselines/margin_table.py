"""The equivalence margins of a baseline, one per measure and boundary, each with the reason for its size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.analysis.calibration import Calibration
from harness.analysis.margins import boundary_margins, declared_margins, recall_margins
from harness.profile.measures import MEASURES
from harness.profile.profile import Profile
from harness.storage.json_text import round_numbers


def boundary_margin_values(margins: Mapping[str, float]) -> list[float]:
    """Return the margins of the turning points, then of the half-heights, in order; empty if there are none."""
    return [
        margins[name]
        for kind in ("turning_point_", "half_height_")
        for name in sorted(margins)
        if name.startswith(kind)
    ]


def margin_values(table: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return the sizes of the margins of a `margin_table`, by name."""
    return {name: float(margin["value"]) for name, margin in table.items()}


def margin_table(profile: Profile, calibration: Calibration) -> dict[str, dict[str, Any]]:
    """Return the margins of a profile that becomes a baseline, with a `value` and a `reason` per name.

    Each measured similarity curve and attention share has one margin, in its own unit. `turning_point_1` to `_3` and
    `half_height_1` to `_4` have one each, in layers. `recall` and `recall_last` apply to recall and exit agreement.
    """
    stored: dict[str, dict[str, Any]] = {}
    for name, measure in MEASURES.items():
        share = measure.kind.margin
        if share is not None and profile.measured((name,)):
            margins = declared_margins(profile[name].mean(0, dtype=np.float64), calibration.mean_noise(name), share)
            stored[name] = {"value": round_numbers(margins.curve), "reason": margins.reason.split(";")[0]}
    for margin in boundary_margins(profile["inter"], profile.clusters):
        stored[margin.name] = {"value": round_numbers(margin.value), "reason": margin.reason}
    recall = recall_margins(profile.depth + 1)
    stored["recall"] = {"value": float(recall[0]), "reason": "declared for all residual points but the last"}
    stored["recall_last"] = {"value": float(recall[-1]), "reason": "declared: the last point is the model's own output"}
    return stored
