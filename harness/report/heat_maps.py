"""Maps of one sample: the last token's attention over the image and over all tokens, and the decoded words.

The share of a token is its norm divided by the sum of the norms of all tokens in a layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from harness.analysis.phase_reading import PhaseReading
from harness.profile.profile import Array, Drawing
from harness.report.decoded_map import draw_decoded
from harness.report.figures import WIDTH
from harness.report.palette import FAINT, GREEN, INK, ORANGE, PAPER, PHASES, PURPLE
from harness.report.panels import dress

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: A perceptually uniform colour map that also works with colour vision deficiency and in greyscale print.
_MAP = "viridis"
# Opacity of the map over the image, at a share of 0 and at the largest share.
_LEAST_ALPHA, _MOST_ALPHA = 0.12, 0.85
#: The lower end of the logarithmic colour scale, as a power of ten.
_DECADES = -4
_GROUPS = (("image", GREEN), ("instruction", ORANGE), ("other", PURPLE))


def token_shares(drawing: Drawing) -> Array:
    """Return the share of each token in the last token's norm-based attention, (L, tokens).

    Layers without attention keep zeros.
    """
    rows = np.asarray(drawing.norm_rows, dtype=np.float64)
    return np.asarray(rows / np.maximum(rows.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny))


def phase_layers(reading: PhaseReading) -> tuple[range, ...]:
    """Return the layers, 0-based rows of `token_shares`, that lie in each phase."""
    return tuple(range(*reading.phase_layers(phase)) for phase in range(len(PHASES)))


def phase_maps(drawing: Drawing, reading: PhaseReading) -> tuple[Array, ...]:
    """Return for each phase the mean share of every image token over its layers, (rows, columns) of the grid.

    Raises:
        ValueError: the image tokens of the sample do not form a grid.
    """
    if drawing.grid is None:
        raise ValueError(f"the image tokens of {drawing.sample_id} do not form a grid.")
    shares = token_shares(drawing)[:, drawing.groups["image"]]
    return tuple(shares[list(layers)].mean(0).reshape(drawing.grid) for layers in phase_layers(reading))


def attention_map_figure(drawing: Drawing, reading: PhaseReading) -> Figure:
    """Draw the image, and for each phase a map of the last token's attention on every patch.

    All four maps have the same scale; its upper end is the 99 % quantile of all patches.

    Raises:
        ValueError: the image tokens of the sample do not form a grid.
    """
    maps = phase_maps(drawing, reading)
    image_share = token_shares(drawing)[:, drawing.groups["image"]].sum(1)
    figure = Figure(figsize=(WIDTH, 3.85), facecolor=PAPER.light)
    axes_grid: Any = figure.subplots(2, 3, gridspec_kw={"left": 0.01, "right": 0.99, "top": 0.945, "bottom": 0.01})
    upper = float(np.quantile(np.stack(maps), 0.99)) or 1.0
    _show_image(axes_grid[0, 0], drawing.image, "input image")
    height, width = drawing.image.shape[:2]
    map_axes = (axes_grid[0, 1], axes_grid[0, 2], axes_grid[1, 0], axes_grid[1, 1])
    for axes, phase, layers, patches in zip(map_axes, PHASES, phase_layers(reading), maps, strict=True):
        share = float(image_share[list(layers)].mean())
        _show_image(axes, _grey(drawing.image), f"{phase.number}, {_layers_text(layers)}: image {share:.0%}")
        axes.imshow(
            patches, extent=(-0.5, width - 0.5, height - 0.5, -0.5), cmap=_MAP, vmin=0.0, vmax=upper,
            alpha=_LEAST_ALPHA + (_MOST_ALPHA - _LEAST_ALPHA) * np.clip(patches / upper, 0.0, 1.0),
            interpolation="nearest",
        )  # fmt: skip
    axes_grid[1, 2].axis("off")
    scale = figure.add_axes((0.73, 0.3, 0.22, 0.03))
    bar = figure.colorbar(ScalarMappable(Normalize(0.0, upper), _MAP), cax=scale, orientation="horizontal")
    bar.set_label("attention on one patch", fontsize=7.5, color=FAINT.light)
    bar.set_ticks([0.0, upper / 2, upper], labels=["0", f"{upper / 2:.1%}", f"{upper:.1%}"])
    bar.ax.tick_params(labelsize=7.5, colors=FAINT.light, length=2.5)
    bar.outline.set_visible(False)
    return figure


def token_figure(drawing: Drawing, reading: PhaseReading) -> Figure:
    """Draw the share of every prompt token in every layer on a logarithmic scale, with groups and phases."""
    shares = token_shares(drawing)
    figure = Figure(figsize=(WIDTH, 3.9), facecolor=PAPER.light)
    axes = figure.add_axes((0.085, 0.19, 0.755, 0.755))
    tokens, depth = shares.shape[1], shares.shape[0]
    shown = axes.imshow(
        np.log10(np.maximum(shares, 10.0**_DECADES)), aspect="auto", origin="lower",
        extent=(-0.5, tokens - 0.5, 0.5, depth + 0.5), cmap=_MAP, vmin=_DECADES, vmax=0.0, interpolation="nearest",
    )  # fmt: skip
    dress(axes, "layer", x_label="token of the prompt, the last one at the right")
    axes.grid(visible=False)
    for name, colour in _GROUPS:
        _group_bar(axes, drawing.groups[name], f"{name} tokens", colour.light)
    axes.legend(
        fontsize=7.5, frameon=False, labelcolor=INK.light, ncols=3, loc="upper left", bbox_to_anchor=(-0.02, -0.145),
        borderaxespad=0.0,
    )  # fmt: skip
    across = axes.get_yaxis_transform()
    for phase, layers in zip(PHASES, phase_layers(reading), strict=True):
        if layers.start:
            axes.axhline(layers.start + 0.5, color=PAPER.light, lw=1.0, ls=(0, (3, 2)))
        axes.text(1.012, (layers.start + layers.stop + 1) / 2, phase.number, transform=across, fontsize=8,
                  color=INK.light, va="center", ha="left", weight="bold")  # fmt: skip
    bar = figure.colorbar(shown, cax=figure.add_axes((0.885, 0.19, 0.018, 0.755)))
    bar.ax.tick_params(labelsize=7, colors=FAINT.light, length=2)
    bar.set_ticks(range(_DECADES, 1), labels=[f"{10.0**power:.{max(0, -power - 2)}%}" for power in range(_DECADES, 1)])
    bar.outline.set_visible(False)
    return figure


def decoded_figure(drawing: Drawing, reading: PhaseReading) -> Figure:
    """Draw the map of what LogitLens decodes at the image tokens, with the last token's words beside it."""
    height = 4.6
    figure = Figure(figsize=(WIDTH, height), facecolor=PAPER.light)
    draw_decoded(figure.add_axes((0.085, 0.66 / height, 0.665, 1.0 - 0.9 / height)), drawing, reading)
    return figure


def _group_bar(axes: Axes, member: Array, name: str, colour: str) -> None:
    """Draw a line above each run of tokens of a group; the first line is in the legend."""
    positions = np.flatnonzero(member)
    for number, run in enumerate(np.split(positions, np.flatnonzero(np.diff(positions) > 1) + 1)):
        if len(run):
            axes.plot(
                [run[0] - 0.45, run[-1] + 0.45], [1.018, 1.018], transform=axes.get_xaxis_transform(), color=colour,
                lw=3.0, solid_capstyle="butt", clip_on=False, label=name if number == 0 else None,
            )  # fmt: skip


def _show_image(axes: Axes, pixels: Array, title: str) -> None:
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255)
    axes.set_title(title, fontsize=7.5, color=INK.light, pad=3)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _grey(pixels: Array) -> Array:
    """Return the image in greyscale, so that only the map has colour."""
    return np.asarray(pixels @ np.array([0.299, 0.587, 0.114]), dtype=np.uint8)


def _layers_text(layers: range) -> str:
    return f"layers {layers.start + 1}-{layers.stop}" if len(layers) > 1 else f"layer {layers.stop}"
