"""Panels of the states' steps, norms and visual integration, and of the attention to the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from harness.analysis.depth_landmarks import SETTLED_COSINE
from harness.analysis.phase_reading import PhaseReading
from harness.profile.measures import plotted_measures
from harness.profile.profile import Profile
from harness.report.palette import FAINT
from harness.report.panels import OverlaidCurves, attention_layers, family_panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def steps_panel(axes: Axes, profile: Profile, reading: PhaseReading, overlaid: OverlaidCurves | None = None) -> None:
    """Draw the cosine of a token's states before and after each layer, for image and text tokens, with bands.

    The dotted line is the cosine from which on states count as settled.
    """
    axes.axhline(SETTLED_COSINE, color=FAINT.light, lw=0.9, ls=(0, (1, 2)), zorder=-1)
    family_panel(axes, profile, reading, overlaid, "steps", "mean cosine")


def norms_panel(axes: Axes, profile: Profile, reading: PhaseReading, overlaid: OverlaidCurves | None = None) -> None:
    """Draw the mean norm of image states over that of text states on a logarithmic scale, with a sample band."""
    family_panel(axes, profile, reading, overlaid, "norms", "ratio of norms")
    if profile.measured(plotted_measures("norms")):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def integration_panel(
    axes: Axes, profile: Profile, reading: PhaseReading, overlaid: OverlaidCurves | None = None
) -> None:
    """Draw the cosine distance of the last token's states between the real and a blank image, with a sample band."""
    family_panel(axes, profile, reading, overlaid, "integration", "cosine distance")


def image_attention_panel(
    axes: Axes, profile: Profile, reading: PhaseReading, overlaid: OverlaidCurves | None = None
) -> None:
    """Draw the instruction's attention to the image, and the last token's weight minus norm share, with bands."""
    where = attention_layers(profile)
    family_panel(axes, profile, reading, overlaid, "image_attention", "share of the weights", where)
