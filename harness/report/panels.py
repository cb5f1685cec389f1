"""The paper's figures as panels: each function draws one figure of a profile on matplotlib axes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.ticker import MaxNLocator

from harness.analysis.mean_difference import Verdict
from harness.analysis.phase_reading import PhaseReading
from harness.analysis.segments import PROMINENCE_SHARE, persistence
from harness.errors import printable
from harness.judgement.regression import Finding
from harness.judgement.results import Result
from harness.profile.measures import MEASURES, plotted_measures
from harness.profile.profile import Array, Profile, as_floats
from harness.report.controls_compared import control_name
from harness.report.palette import CONTROL_LINES, FAINT, GREY, GRID, INK, PAPER, PHASES, RED, SHADE, Style, curve_style
from harness.storage.file_names import short_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Mark(NamedTuple):
    """The positions of a measure that a verdict names, as indices into its curve."""

    verdict: str
    positions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class OverlaidCurves:
    """A baseline or another model whose curves are drawn under those of a profile; `name` is its label in legends.

    `marks` holds the changed positions by measure.
    """

    profile: Profile
    name: str = "baseline"
    marks: Mapping[str, Mark] = field(default_factory=dict)


Panel = Callable[["Axes", Profile, PhaseReading, OverlaidCurves | None], None]

#: The largest prominence on the x axis, as a share of the curve's range.
_LARGEST_PROMINENCE = 0.3
#: Height of the band of phases above a panel, as a share of the panel's height.
_BAND = 0.075
# Characters per line of a note that replaces the curves of a panel.
_NOTE_WIDTH = 44


def inter_panel(axes: Axes, profile: Profile, reading: PhaseReading, overlaid: OverlaidCurves | None = None) -> None:
    """Draw figure 1: inter-modal similarity with the middle 80 % of the samples, controls, and the four phases.

    The open diamond is the state after the final norm, on which most published curves end.
    """
    names = profile.measured(plotted_measures("inter"))
    for name in names:
        _curve(axes, np.arange(profile.depth + 1), profile[name], curve_style(name), band=name == "inter")
    for (control, curves), line in zip(profile.controls.items(), CONTROL_LINES, strict=False):
        style = Style(GREY, line, f"control: {control_name(profile, control)}")
        _curve(axes, np.arange(profile.depth + 1), curves["inter"], style, band=False)
    after = float(profile["post_norm_inter"].mean())
    axes.plot(
        [profile.depth], [after], "D", mfc=PAPER.light, mec=curve_style("inter").colour.light, ms=5, clip_on=False,
        label="after the final norm", zorder=4,
    )  # fmt: skip
    _compare(axes, names, overlaid)
    finish_panel(axes, reading, "mean cosine")


def intra_panel(axes: Axes, profile: Profile, reading: PhaseReading, overlaid: OverlaidCurves | None = None) -> None:
    """Draw figure 3: similarity within the image, the text and the instruction tokens, with sample bands."""
    family_panel(axes, profile, reading, overlaid, "intra", "mean cosine")


def attention_panel(
    axes: Axes, profile: Profile, reading: PhaseReading, overlaid: OverlaidCurves | None = None
) -> None:
    """Draw figure 4: the groups' shares of the last token's norm-based attention in every layer, with sample bands."""
    family_panel(axes, profile, reading, overlaid, "attention", "share of the norms", attention_layers(profile))


def attention_layers(profile: Profile) -> Array:
    """Return the indices of the layers with shares; those without softmax attention have none and are not drawn."""
    shares = [profile[name].any(axis=0) for name in profile.measured(plotted_measures("attention"))]
    return np.flatnonzero(np.any(shares, axis=0)) if shares else np.arange(0)


def recall_panel(axes: Axes, profile: Profile, reading: PhaseReading, overlaid: OverlaidCurves | None = None) -> None:
    """Draw figure 5: recall of the reference words at the image tokens, and chance."""
    points = np.arange(profile.depth + 1)
    # The curves with the highest recall come first.
    names = plotted_measures("lens")[::-1]
    for name in profile.measured((*names, "recall_chance_5")):
        _curve(axes, points, profile[name], curve_style(name), band=False)
    if profile.no_recall:
        note_in_panel(axes, f"left out: {profile.no_recall}")
    _compare(axes, names, overlaid)
    finish_panel(axes, reading, "share of words", from_zero=True)


def prominence_panel(
    axes: Axes, profile: Profile, reading: PhaseReading, overlaid: OverlaidCurves | None = None
) -> None:
    """Draw the number of monotone segments of the mean curve by prominence, and the declared prominence.

    The prominence of each curve is a share of its range. A baseline is not drawn.
    """
    inter = curve_style("inter")
    _steps(axes, reading.summary.mean, Style(inter.colour, inter.line, "inter-modal similarity"))
    for (control, curves), line in zip(profile.controls.items(), CONTROL_LINES, strict=False):
        _steps(
            axes, as_floats(curves["inter"]).mean(0), Style(GREY, line, f"control: {control_name(profile, control)}")
        )
    axes.axvline(PROMINENCE_SHARE, color=FAINT.light, lw=0.9, ls=(0, (2, 2)))
    axes.axhline(4, color=FAINT.light, lw=0.5, ls=(0, (1, 3)))
    axes.text(PROMINENCE_SHARE, 1.01, "used for verdicts", transform=axes.get_xaxis_transform(), fontsize=7.5,
              color=FAINT.light, ha="center", va="bottom")  # fmt: skip
    dress(axes, "monotone segments", x_label="prominence, share of the curve's range")
    axes.set_xlim(0.0, _LARGEST_PROMINENCE)
    axes.set_ylim(bottom=0.0)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(axes)


def marks_by_measure(results: Iterable[Result]) -> dict[str, Mark]:
    """Return the positions that differ or changed within the margin, by measure, from the verdicts on one pair."""
    return {
        part.source.measure.name: Mark(part.verdict, part.source.agreement.layers)
        for result in results
        for part in result.parts
        if isinstance(part.source, Finding) and part.verdict in (Verdict.DIFFERS, Verdict.EQUIVALENT)
    }


def draw_phases(axes: Axes, reading: PhaseReading) -> None:
    """Draw the four phases as a band above axes, by tint, pattern and label, and each boundary with its interval.

    A phase that is not confirmed is hollow, with a dashed outline and its number in brackets.
    """
    across = axes.get_xaxis_transform()
    phases = zip(PHASES, reading.confirmed, reading.phase_ends, reading.phase_ends[1:], strict=False)
    for index, (phase, confirmed, first, last) in enumerate(phases):
        if index % 2 == 0:
            axes.axvspan(first, last, color=SHADE.light, lw=0, zorder=-4)
        look = phase.look(confirmed)
        band = axes.axvspan(
            first, last, 1.01, 1.01 + _BAND, fc=look.fill, ec=FAINT.light, lw=0.4 if confirmed else 0.8,
            ls=look.outline, hatch=look.hatch, clip_on=False, zorder=2,
        )  # fmt: skip
        band.set_hatch_linewidth(0.35)
        axes.text(
            (first + last) / 2, 1.01 + _BAND / 2, look.number, transform=across, ha="center", va="center",
            fontsize=8, color=look.ink, clip_on=False, zorder=3, weight="bold",
            bbox={"boxstyle": "round,pad=0.12", "fc": look.fill, "ec": "none"},
        )  # fmt: skip
    for point in reading.boundaries.turning_points:
        axes.axvline(point.estimate, color=FAINT.light, lw=0.8, ls=(0, (2, 2)), zorder=-1)
        if point.high > point.low:
            axes.axvspan(point.low, point.high, color=GREY.light, alpha=0.16, lw=0, zorder=-2)


def dress(axes: Axes, unit: str, *, x_label: str = "layer") -> None:
    """Set the grid, labels, ticks and spines that all figures share."""
    axes.set_xlabel(x_label, fontsize=8.5, color=FAINT.light)
    axes.set_ylabel(unit, fontsize=8.5, color=FAINT.light)
    axes.tick_params(labelsize=8, colors=FAINT.light, length=2.5)
    axes.grid(axis="y", color=GRID.light, lw=0.7, zorder=-3)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRID.light)


def legible(name: str) -> str:
    """Return a name for figures: control characters are escaped, and no name starts with `_`, which legends skip."""
    return printable(short_name(f"model {name}" if name.startswith("_") else name))


def note_in_panel(axes: Axes, note: str) -> None:
    """Write a note in the middle of a panel, in place of its curves."""
    axes.text(
        0.5, 0.5, "\n".join(wrap(note, _NOTE_WIDTH)), transform=axes.transAxes, ha="center", va="center", fontsize=8.5,
        color=INK.light, parse_math=False,
    )  # fmt: skip


def legend_below(axes: Axes) -> None:
    """Add a legend in two columns below the axes."""
    if not axes.get_legend_handles_labels()[0]:
        return
    axes.legend(
        fontsize=7.5, frameon=False, labelcolor=INK.light, ncols=2, loc="upper left", bbox_to_anchor=(-0.02, -0.185),
        borderaxespad=0.0, handlelength=2.4, columnspacing=1.2, labelspacing=0.35,
    )  # fmt: skip


def family_panel(
    axes: Axes,
    profile: Profile,
    reading: PhaseReading,
    overlaid: OverlaidCurves | None,
    figure: str,
    unit: str,
    where: Any = slice(None),
) -> None:
    """Draw the curves of a figure with their bands, at the positions selected by `where`."""
    names = plotted_measures(figure)
    for name in profile.measured(names):
        rows = profile[name]
        positions = np.arange(rows.shape[1]) + MEASURES[name].axis.first
        _curve(axes, positions[where], rows[:, where], curve_style(name))
    if not profile.measured(names):
        note_in_panel(axes, "not measured")
    _compare(axes, names, overlaid, where)
    finish_panel(axes, reading, unit, from_zero=figure in ("attention", "integration"))


def finish_panel(axes: Axes, reading: PhaseReading, unit: str, *, from_zero: bool = False) -> None:
    """Set the limits of a panel over layers, and draw phases, grid, labels and legend."""
    if from_zero:
        axes.set_ylim(bottom=0.0)
    axes.set_xlim(0, reading.last)
    axes.margins(y=0.06)
    draw_phases(axes, reading)
    dress(axes, unit)
    legend_below(axes)


def _curve(axes: Axes, x: Array, rows: Array, style: Style, *, band: bool = True) -> None:
    if band:
        low, high = np.quantile(rows, [0.1, 0.9], axis=0)
        axes.fill_between(x, low, high, color=style.colour.light, alpha=0.16, lw=0)
    axes.plot(x, rows.mean(0), ls=style.line, color=style.colour.light, lw=1.7, label=style.label)


def _compare(axes: Axes, names: tuple[str, ...], overlaid: OverlaidCurves | None, where: Any = slice(None)) -> None:
    """Draw the baseline's curves as open dots, and marks at the changed positions."""
    names = () if overlaid is None else overlaid.profile.measured(names)
    if overlaid is None or not names:
        return
    first = MEASURES[names[0]].axis.first
    label: str | None = legible(overlaid.name)
    for name in names:
        mean = overlaid.profile[name].mean(0)
        positions = (np.arange(len(mean)) + first)[where]
        colour = curve_style(name).colour.light
        axes.plot(positions, mean[where], "o", mfc="none", mec=colour, mew=0.8, ms=3.2, zorder=3, label=label)
        label = None
    marked = {name: mark for name, mark in overlaid.marks.items() if name in names}
    for verdict, sign, label_text in (
        (Verdict.DIFFERS, "v", "differs here"),
        (Verdict.EQUIVALENT, "|", "changed within margin"),
    ):
        layers = sorted(
            {position for mark in marked.values() if mark.verdict == verdict for position in mark.positions}
        )
        if layers:
            axes.plot(
                np.array(layers) + first, np.full(len(layers), 0.985), sign, transform=axes.get_xaxis_transform(),
                color=RED.light, ms=5, mew=1.2, clip_on=False, zorder=5, label=label_text,
            )  # fmt: skip


def segment_steps(mean: Array) -> tuple[Array, Array]:
    """Return prominences as shares of a curve's range, and the number of its monotone segments at each."""
    merges, spread = persistence(mean), float(mean.max() - mean.min())
    shares = np.linspace(0.0, _LARGEST_PROMINENCE, 301)
    return shares, np.array([merges.segment_count(share * spread) for share in shares])


def _steps(axes: Axes, mean: Array, style: Style) -> None:
    axes.step(*segment_steps(mean), where="post", color=style.colour.light, ls=style.line, lw=1.7, label=style.label)
