"""How many moves a curve has, by how large each of them must be: k(delta) of the real curve and of its controls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import MaxNLocator

from harness.analysis.moves import PROMINENCE_SHARE, persistence
from harness.analysis.phase_reading import PhaseReading
from harness.profile.profile import Array, Profile, as_floats
from harness.report.held import Held
from harness.report.palette import CONTROL_LINES, FAINT, GREY, Style, style_of
from harness.report.panels import dress, legend_below

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: The largest prominence that is shown, a share of the curve's range.
_MOST = 0.3


def prominence_panel(axes: Axes, profile: Profile, reading: PhaseReading, held: Held | None = None) -> None:
    """Draws k(delta), how many alternating moves the mean curve has at each prominence, and the declared one.

    Each curve's prominence is a share of its own range. A baseline has no part in it.
    """
    inter = style_of("inter")
    _steps(axes, reading.summary.mean, Style(inter.colour, inter.line, "inter-modal similarity"))
    for (control, curves), line in zip(profile.controls.items(), CONTROL_LINES, strict=False):
        _steps(axes, as_floats(curves["inter"]).mean(0), Style(GREY, line, f"control: {control}"))
    axes.axvline(PROMINENCE_SHARE, color=FAINT.light, lw=0.9, ls=(0, (2, 2)))
    axes.axhline(4, color=FAINT.light, lw=0.5, ls=(0, (1, 3)))
    axes.text(PROMINENCE_SHARE, 1.01, "declared for verdicts", transform=axes.get_xaxis_transform(), fontsize=7.5,
              color=FAINT.light, ha="center", va="bottom")  # fmt: skip
    dress(axes, "moves k", place="prominence asked for, share of the curve's range")
    axes.set_xlim(0.0, _MOST)
    axes.set_ylim(bottom=0.0)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(axes)


def _steps(axes: Axes, mean: Array, style: Style) -> None:
    kept, spread = persistence(mean), float(mean.max() - mean.min())
    shares = np.linspace(0.0, _MOST, 301)
    axes.step(
        shares, [kept.moves_at(share * spread) for share in shares], where="post", color=style.colour.light,
        ls=style.line, lw=1.7, label=style.label,
    )  # fmt: skip
