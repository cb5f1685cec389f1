"""The figure of the knockout: the loss per window of layers and direction, with controls and the last layer needed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from harness.analysis.phase_reading import PhaseReading
from harness.judgement.landmarks import landmarks_of
from harness.profile.profile import Profile
from harness.report.image_flow import CONTROL_LABELS, PATH_LABELS
from harness.report.palette import BLUE, FAINT, GREEN, GREY, INK, ORANGE, PURPLE, RED, LineStyle
from harness.report.panels import OverlaidCurves, finish_panel, note_in_panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PATHS = (("later", BLUE, ""), ("answer", GREEN, "///"), ("instruction", ORANGE, "..."))
_CONTROLS: dict[str, LineStyle] = {"noise": (0, (5, 2)), "blank": (0, (1, 1.5)), "other": "-."}
# Width of a bar as a share of its window.
_WIDTH = 0.28


def flow_panel(axes: Axes, profile: Profile, reading: PhaseReading, _: OverlaidCurves | None = None) -> None:
    """Draw figure 6: the loss of a caption if a window of layers cannot attend to the image, per direction.

    Bars have their intervals. Grey steps are the controls. A dashed line marks the layer from which on the image is
    not needed. A dotted line marks the layer from which on the last token's best guess is the model's own.
    """
    knockout = reading.knockout
    if knockout is None:
        note_in_panel(axes, "not measured: add --phase-knockout")
        finish_panel(axes, reading, "loss in nats")
        return
    for index, (path, colour, hatch) in enumerate(_PATHS):
        losses = knockout.paths[path]
        widths = np.array([loss.layers[1] - loss.layers[0] + 1 for loss in losses])
        centres = np.array([loss.layers[0] - 1 for loss in losses]) + widths * (0.5 + _WIDTH * (index - 1))
        effects = np.array([loss.effect for loss in losses])
        errors = np.array([[loss.effect - loss.interval[0], loss.interval[1] - loss.effect] for loss in losses]).T
        axes.bar(
            centres, effects, widths * _WIDTH, color=colour.light, alpha=0.85, hatch=hatch, ec=INK.light, lw=0.4,
            label=PATH_LABELS[path], zorder=2,
        )  # fmt: skip
        axes.errorbar(centres, effects, errors, fmt="none", ecolor=INK.light, elinewidth=0.7, capsize=1.5, zorder=3)
    for control, losses in knockout.controls.items():
        edges = [losses[0].layers[0] - 1, *(loss.layers[1] for loss in losses)]
        axes.stairs(
            [loss.effect for loss in losses], edges, baseline=None, color=GREY.light, ls=_CONTROLS.get(control, ":"),
            lw=1.3, label=f"control: {CONTROL_LABELS.get(control, control)}", zorder=4,
        )  # fmt: skip
    axes.axhline(0.0, color=FAINT.light, lw=0.6, zorder=1)
    needed = knockout.last_needed
    if needed is not None and needed.estimate <= profile.depth:
        # Layer l lies between the residual points l - 1 and l.
        axes.axvline(
            needed.estimate - 1, color=RED.light, lw=1.2, ls=(0, (4, 2)), zorder=5,
            label=f"not needed from {needed:g}",
        )  # fmt: skip
        if needed.high > needed.low:
            axes.axvspan(needed.low - 1, needed.high - 1, color=RED.light, alpha=0.12, lw=0, zorder=0)
    exit_layer = landmarks_of(profile).get("exit")
    if exit_layer is not None and not math.isnan(exit_layer.estimate):
        axes.axvline(
            exit_layer.estimate, color=PURPLE.light, lw=1.2, ls=(0, (1, 1.2)), zorder=5,
            label=f"best guess final from {exit_layer:g}",
        )  # fmt: skip
    finish_panel(axes, reading, "loss in nats")
