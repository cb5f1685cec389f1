"""Panels of differences with their simultaneous bands: real minus control, and one model minus another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from harness.analysis.control_difference import MIN_CONTROL_DIFFERENCE, DifferenceBand, difference_band
from harness.analysis.phase_reading import PhaseReading
from harness.analysis.recorded_reading import RecordedReading
from harness.baselines.store import Baseline
from harness.judgement.regression import ALPHA_DIFF, mean_difference
from harness.judgement.side_by_side import RecordedBaseline
from harness.profile.profile import Array, Profile
from harness.report.palette import FAINT, SERIES, Style
from harness.report.panels import OverlaidCurves, finish_panel, legible, note_in_panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def control_bands(reading: PhaseReading) -> Mapping[str, DifferenceBand]:
    """Return, per control, the inter-modal similarity minus that of the control, with its simultaneous band."""
    if isinstance(reading, RecordedReading):
        return reading.control_bands
    return {
        control: difference_band(rows["inter"], reading.alpha) for control, rows in reading.control_differences.items()
    }


def controls_panel(axes: Axes, profile: Profile, reading: PhaseReading, overlaid: OverlaidCurves | None = None) -> None:
    """Draw the inter-modal similarity minus that of each control, with bands that hold at all points at once.

    Dotted lines are the margin that a difference must exceed. A baseline is not drawn.
    """
    bands = control_bands(reading)
    for (control, band), style in zip(bands.items(), SERIES, strict=False):
        count = "" if band.n == reading.summary.n else f", n = {band.n}"
        _difference(axes, band.mean, band.half_width, style._replace(label=f"real minus {control}{count}"))
    if bands:
        _margin(axes, MIN_CONTROL_DIFFERENCE)
    else:
        note_in_panel(axes, "no control was measured")
    finish_panel(axes, reading, "difference of the cosine")


def model_difference(profile: Profile, other: Baseline) -> DifferenceBand | None:
    """Return the inter-modal similarity of a model minus that of another, with the band of the verdict "differs".

    None if the models differ in depth, because their layers then have no partners.
    """
    if profile.depth != other.profile.depth:
        return None
    if isinstance(other, RecordedBaseline):
        return other.difference
    difference = mean_difference(profile, other, "inter")
    assert difference is not None
    half_width = difference.critical(ALPHA_DIFF) * difference.standard_error
    return DifferenceBand(difference.difference, half_width, 1.0 - ALPHA_DIFF, int(difference.n))


def difference_panel(axes: Axes, band: DifferenceBand, reading: PhaseReading, name: str, margin: float) -> None:
    """Draw the difference to another model over the phases of this one.

    Layers differ where the whole band lies beyond the margin.
    """
    _difference(axes, band.mean, band.half_width, SERIES[0]._replace(label=f"against {legible(name)}"))
    _margin(axes, margin)
    finish_panel(axes, reading, "difference of the cosine")


def _difference(axes: Axes, mean: Array, half_width: Array, style: Style) -> None:
    points = np.arange(len(mean))
    axes.fill_between(points, mean - half_width, mean + half_width, color=style.colour.light, alpha=0.16, lw=0)
    axes.plot(points, mean, ls=style.line, color=style.colour.light, lw=1.7, label=style.label)


def _margin(axes: Axes, margin: float) -> None:
    axes.axhline(0.0, color=FAINT.light, lw=0.8, zorder=-1)
    for number, level in enumerate((margin, -margin)):
        label = f"margin {margin:.3g}" if number == 0 else None
        axes.axhline(level, color=FAINT.light, lw=0.9, ls=(0, (1, 2)), zorder=-1, label=label)
