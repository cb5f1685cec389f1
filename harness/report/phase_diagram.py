"""The phase diagram with a band over the depth for each pair; recall averaged over a model's datasets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from harness.analysis.turning_points import BoundaryInterval
from harness.profile.measures import chance_measure
from harness.profile.profile import Array, Profile
from harness.report.figures import HEIGHT, WIDTH, fit_height
from harness.report.hover import HoverArea
from harness.report.palette import FAINT, INK, PAPER, PHASES, RED, SERIES
from harness.report.panels import dress, legend_below, legible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BAND, _STEP = 0.34, 1.0
#: Labels of boundaries that are closer than this (relative depth) are placed on opposite sides.
_NEAR = 0.12


class Band(NamedTuple):
    """The band of a pair in the diagram; turning points are in layers. Phases that are not confirmed are hollow."""

    name: str
    depth: int
    turning_points: tuple[BoundaryInterval, ...]
    baseline_turning_points: tuple[float, ...] = ()
    baseline_depth: int = 0
    confirmed: tuple[bool, bool, bool, bool] = (True, True, True, True)

    @property
    def edges(self) -> tuple[float, ...]:
        """The layers where phases begin or end, including both ends of the curve."""
        return 0.0, *(point.estimate for point in self.turning_points), float(self.depth)


def phase_diagram(bands: Sequence[Band]) -> Figure:
    """Draw the phases of every pair over the relative depth, with the intervals of the boundaries.

    A triangle above a band marks the boundary of the baseline; numbers are layers.
    """
    height = 0.62 * len(bands) + 0.85
    figure = Figure(figsize=(WIDTH, height), facecolor=PAPER.light)
    axes = figure.add_axes((0.025, 0.52 / height, 0.95, 1.0 - 0.62 / height))
    for row, band in enumerate(bands):
        _band(axes, band, -row * _STEP)
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(-(len(bands) - 1) * _STEP - 0.5, 0.62)
    dress(axes, "", x_label="depth: 0 the embeddings, 1 the input of the final norm")
    axes.set_yticks([])
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    return figure


def band_areas(axes: Axes, bands: Sequence[Band]) -> list[HoverArea]:
    """Return an area per phase of every band, with its name and layers under the pointer."""
    return [
        HoverArea(
            axes, (first / band.depth, last / band.depth), (-row * _STEP - _BAND / 2, -row * _STEP + _BAND / 2),
            f"{band.name}, phase {phase.number}, {phase.name}: layers {first:g} to {last:g}"
            f"{'' if confirmed else ', not confirmed'}",
        )
        for row, band in enumerate(bands)
        for phase, confirmed, first, last in zip(PHASES, band.confirmed, band.edges, band.edges[1:], strict=False)
    ]  # fmt: skip


def _band(axes: Axes, band: Band, y: float) -> None:
    turns = [point.estimate / band.depth for point in band.turning_points]
    edges = [0.0, *turns, 1.0]
    for phase, confirmed, first, last in zip(PHASES, band.confirmed, edges, edges[1:], strict=False):
        look = phase.look(confirmed)
        patch = axes.barh(
            y, last - first, _BAND, first, fc=look.fill, ec=FAINT.light, lw=0.5 if confirmed else 0.9, ls=look.outline,
            hatch=look.hatch, clip_on=False,
        )[0]  # fmt: skip
        patch.set_hatch_linewidth(0.4)
        axes.text(
            (first + last) / 2, y, look.number, ha="center", va="center", fontsize=8.5, weight="bold",
            color=look.ink, zorder=4, bbox={"boxstyle": "round,pad=0.14", "fc": look.fill, "ec": "none"},
        )  # fmt: skip
    axes.text(
        0.0, y + _BAND / 2 + 0.05, f"{legible(band.name)}, {band.depth} layers", fontsize=8.5, color=INK.light,
        va="bottom", ha="left",
    )  # fmt: skip
    for index, point in enumerate(band.turning_points):
        position, low, high = (value / band.depth for value in (point.estimate, point.low, point.high))
        axes.plot([position, position], [y - _BAND / 2 - 0.04, y + _BAND / 2 + 0.04], color=INK.light, lw=1.3, zorder=5)
        if high > low:
            axes.errorbar(
                [position], [y - _BAND / 2 - 0.035], xerr=[[position - low], [high - position]], color=INK.light,
                lw=1.1, capsize=2.2, zorder=5,
            )  # fmt: skip
        side = _side(turns, index)
        axes.text(position + {"right": -0.006, "left": 0.006}.get(side, 0.0), y - _BAND / 2 - 0.08, f"{point:g}",
                  fontsize=7.5, color=INK.light, va="top", ha=side)  # fmt: skip
    if band.baseline_depth:
        baseline_turns = [turn / band.baseline_depth for turn in band.baseline_turning_points]
        axes.plot(
            baseline_turns, [y + _BAND / 2 + 0.01] * len(baseline_turns), "v", color=RED.light, ms=4, zorder=6,
            clip_on=False,
        )  # fmt: skip


def _side(turns: Sequence[float], index: int) -> str:
    after = index + 1 < len(turns) and turns[index + 1] - turns[index] < _NEAR
    before = index > 0 and turns[index] - turns[index - 1] < _NEAR
    if after and not before:
        return "right"
    return "left" if before and not after else "center"


def mean_recalls(profiles: Sequence[Profile], measure: str = "recall_5") -> dict[str, tuple[Array, Array]]:
    """Return recall and its chance level by model, averaged over the datasets of the model, (points,) each."""
    by_model: Mapping[str, list[Profile]] = defaultdict(list)
    for profile in profiles:
        by_model[profile.model].append(profile)

    def mean(profiles_of_model: list[Profile], name: str) -> Array:
        return np.asarray(np.mean([profile[name].mean(0) for profile in profiles_of_model], axis=0))

    return {
        model: (mean(profiles_of_model, measure), mean(profiles_of_model, chance_measure(measure)))
        for model, profiles_of_model in by_model.items()
    }


def recall_by_model(profiles: Sequence[Profile], measure: str = "recall_5") -> Figure:
    """Draw figure 5 averaged over the datasets of each model: recall at the image tokens, and chance.

    The datasets of a model have equal weights, independent of their numbers of samples. The x axis is relative depth.
    """
    figure = Figure(figsize=(WIDTH, HEIGHT), facecolor=PAPER.light)
    axes = figure.add_axes((0.12, 0.32, 0.855, 0.64))
    for number, (model, (mean, chance)) in enumerate(mean_recalls(profiles, measure).items()):
        style = SERIES[number % len(SERIES)]
        depth = np.arange(len(mean)) / (len(mean) - 1)
        axes.plot(depth, mean, ls=style.line, color=style.colour.light, lw=1.8, label=legible(model))
        axes.plot(
            depth,
            chance,
            ls=(0, (1, 2)),
            color=style.colour.light,
            lw=1.1,
            label=f"{legible(model)}, another sample's words",
        )
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(bottom=0.0)
    dress(axes, "share of words, top 5", x_label="depth: 0 the embeddings, 1 the input of the final norm")
    legend_below(axes)
    fit_height(figure)
    return figure
