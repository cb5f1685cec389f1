"""A profile restored from a record, which holds means and bands instead of samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from harness.analysis.phase_reading import PhaseReading
from harness.analysis.turning_points import BoundaryInterval
from harness.profile.profile import Array, Profile

# With eleven sorted rows the quantiles 0.1 and 0.9 are the second and the tenth row, without interpolation.
ROWS = 11


@dataclass(frozen=True, slots=True, repr=False)
class RecordedProfile(Profile):
    """A profile from a record: its arrays are artificial rows with the recorded means and bands.

    The rows serve figures and tables. Phases and landmarks cannot be computed from them, so `reading` and `landmarks`
    hold the recorded ones.
    """

    reading: PhaseReading | None = None
    landmarks: Mapping[str, BoundaryInterval] = field(default_factory=dict)


def rows_with_band(mean: Array, low: Array, high: Array) -> Array:
    """Return rows (11, positions) whose mean and quantiles 0.1 and 0.9 are the given curves, each (positions,).

    The seven middle rows are equal. The outermost row absorbs what a mean outside the band leaves over.
    """
    middle = (ROWS * mean - 2 * low - 2 * high) / (ROWS - 4)
    inner = np.clip(middle, low, high)
    rows = np.stack([low, low, *[inner] * (ROWS - 4), high, high])
    rest = (ROWS - 4) * (middle - inner)
    rows[0] += np.minimum(rest, 0.0)
    rows[-1] += np.maximum(rest, 0.0)
    return rows


def equal_rows(mean: Array) -> Array:
    """Return two equal rows (2, ...) with the given mean."""
    return np.stack([mean, mean])
