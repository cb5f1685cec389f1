"""The phases of a pair from a record, which holds their numbers instead of the rows behind them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from harness.analysis.claims import Claim
from harness.analysis.control_difference import DifferenceBand
from harness.analysis.curves import CurveSummary, FloatArray
from harness.analysis.knockout_reading import KnockoutReading
from harness.analysis.phase_reading import PhaseReading
from harness.analysis.segments import BoundedRises, ConfirmedSegments, Rises
from harness.analysis.turning_points import Boundaries


@dataclass(frozen=True, slots=True, eq=False)
class RecordedReading(PhaseReading):
    """A reading from a record, with the recorded answers: `phases_confirmed` by phase, and `claims` by name.

    `control_bands` holds, per control, the inter-modal similarity minus that of the control with its band.

    It has no rows, and no intervals of rises.
    """

    phases_confirmed: tuple[bool, bool, bool, bool] = (False, False, False, False)
    claims: Mapping[str, Claim] = field(default_factory=dict)
    control_bands: Mapping[str, DifferenceBand] = field(default_factory=dict)

    @property
    def confirmed(self) -> tuple[bool, bool, bool, bool]:
        """True for each phase whose change of the mean inter-modal curve is confirmed, in the order I to IV."""
        return self.phases_confirmed


def recorded_reading(
    mean: FloatArray,
    boundaries: Boundaries,
    segments: ConfirmedSegments,
    phases_confirmed: tuple[bool, bool, bool, bool] = (False, False, False, False),
    claims: Mapping[str, Claim] | None = None,
    control_bands: Mapping[str, DifferenceBand] | None = None,
    knockout: KnockoutReading | None = None,
) -> RecordedReading:
    """Return a reading with the recorded numbers.

    Args:
        mean: the mean inter-modal curve (points,).
        boundaries: the boundaries of the phases.
        segments: the confirmed segments.
        phases_confirmed: True for each confirmed phase.
        claims: the claims by name.
        control_bands: the difference to each control.
        knockout: the losses under attention knockout, None without.
    """
    summary = CurveSummary(mean, np.zeros((len(mean), len(mean))), boundaries.n)
    return RecordedReading(
        rows={},
        summary=summary,
        boundaries=boundaries,
        rises=BoundedRises(Rises.from_summary(summary), math.nan, boundaries.n),
        any_segments=segments,
        rising_segments=segments,
        alpha=1.0 - boundaries.level,
        control_differences={},
        recall_chance_difference=None,
        phases_confirmed=phases_confirmed,
        claims=claims or {},
        control_bands=control_bands or {},
        knockout=knockout,
    )
