"""The paper's figures for one profile: similarity across and within modalities, attention shares, LogitLens recall.

`python -m harness.report.figures MODEL DATASET FILE` measures a pair and draws its figures. With
`--against MODEL2` it draws the inter-modal similarity of two models over the relative depth.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from harness.analysis.phase_reading import PhaseReading
from harness.errors import did_you_mean, printable
from harness.judgement.phases import phase_reading
from harness.profile.profile import Profile
from harness.report.decoded_map import draw_decoded
from harness.report.difference_panels import controls_panel
from harness.report.flow_panel import flow_panel
from harness.report.palette import INK, PAPER, SERIES
from harness.report.panels import (
    OverlaidCurves,
    Panel,
    attention_panel,
    dress,
    inter_panel,
    intra_panel,
    legible,
    prominence_panel,
    recall_panel,
)
from harness.report.state_panels import image_attention_panel, integration_panel, norms_panel, steps_panel
from harness.storage.file_names import short_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: The panels by the names that `plot` accepts, with their titles.
PANELS: Mapping[str, tuple[str, Panel]] = {
    "inter": ("Inter-modal similarity", inter_panel),
    "intra": ("Intra-modal similarity", intra_panel),
    "attention": ("Norm-based attention of the last token", attention_panel),
    "recall": ("LogitLens recall at the image tokens", recall_panel),
    "controls": ("Inter-modal similarity minus its controls", controls_panel),
    "flow": ("Loss with the image blocked", flow_panel),
    "steps": ("Cosine of the states before and after a layer", steps_panel),
    "norms": ("Norm of image states over text states", norms_panel),
    "integration": ("Visual integration of the last token", integration_panel),
    "image_attention": ("Attention to the image", image_attention_panel),
    "segments": ("Monotone segments at each prominence", prominence_panel),
}
_PAPER_FIGURES = ("inter", "intra", "attention", "recall")
#: Size of a figure with one panel, in inches: as wide as a column of a paper, so that text is legible on small screens.
WIDTH, HEIGHT = 4.8, 3.6
# Heights in inches: above the panel, the panel, below the panel without legend, and one row of the legend.
_ABOVE, _PANEL, _BELOW, _ROW = 0.28, 2.15, 0.45, 0.155


def phase_figure(profile: Profile, against: Profile | None = None, *, overlaid: OverlaidCurves | None = None) -> Figure:
    """Draw figures 1, 3, 4 and 5 of the paper for one profile, as four panels.

    Bands are the middle 80 % of the samples; shading shows the phases of the mean inter-modal curve. With `against`
    the figure has one panel instead: the inter-modal similarity of both models over the relative depth, at which models
    of any depth are comparable. `overlaid` is a baseline to draw under the four panels.
    """
    if against is not None:
        return overlay_figure(profile, against)
    figure = Figure(figsize=(10.4, 8.4), layout="constrained", facecolor=PAPER.light)
    reading = phase_reading(profile)
    for axes, name in zip(figure.subplots(2, 2).flat, _PAPER_FIGURES, strict=True):
        title, draw = PANELS[name]
        draw(axes, profile, reading, overlaid)
        _panel_title(axes, title)
    _title(figure, f"{short_name(profile.model)} on {profile.dataset}: {profile.n} samples, {profile.depth} layers")
    return figure


def overlay_figure(profile: Profile, against: Profile) -> Figure:
    """Return the inter-modal similarity of two models over the relative depth, with marks at the turning points."""
    figure = Figure(figsize=(7.6, 4.2), layout="constrained", facecolor=PAPER.light)
    axes = figure.subplots()
    for model_profile, style in zip((profile, against), SERIES, strict=False):
        depth, mean, colour = (
            np.arange(model_profile.depth + 1) / model_profile.depth,
            model_profile["inter"].mean(0),
            style.colour.light,
        )
        low, high = np.quantile(model_profile["inter"], [0.1, 0.9], axis=0)
        axes.fill_between(depth, low, high, color=colour, alpha=0.15, lw=0)
        axes.plot(
            depth,
            mean,
            ls=style.line,
            color=colour,
            lw=1.8,
            label=f"{legible(model_profile.model)}, {model_profile.depth} layers",
        )
        turns = list(phase_reading(model_profile).turning_layers)
        axes.plot([turn / model_profile.depth for turn in turns], mean[turns], "o", color=colour, ms=4.5)
    dress(axes, "mean cosine", x_label="depth: 0 the embeddings, 1 the input of the final norm")
    axes.set_xlim(0.0, 1.0)
    axes.set_title("Inter-modal similarity", loc="left", fontsize=9.5, color=INK.light)
    axes.legend(fontsize=7.5, frameon=False, labelcolor=INK.light)
    names = f"{short_name(profile.model)} against {short_name(against.model)}"
    _title(figure, f"{names} on {profile.dataset}: {profile.n} samples")
    return figure


def panel_figure(profile: Profile, name: str, reading: PhaseReading, overlaid: OverlaidCurves | None = None) -> Figure:
    """Return a figure with one panel of `PANELS`, as wide as a column."""
    _, draw = PANELS[name]
    figure, axes = panel_axes()
    draw(axes, profile, reading, overlaid)
    fit_height(figure)
    return figure


def panel_axes() -> tuple[Figure, Axes]:
    """Return a figure as wide as a column, and the axes of its one panel."""
    figure = Figure(figsize=(WIDTH, HEIGHT), facecolor=PAPER.light)
    return figure, figure.add_axes((0.12, 0.335, 0.855, 0.575))


def fit_height(figure: Figure) -> None:
    """Set the height of a figure with one panel to that of the panel and the legend below it."""
    (axes,) = figure.axes
    legend = axes.get_legend()
    rows = 0 if legend is None else -(-len(legend.get_texts()) // 2)
    below = _BELOW + _ROW * rows
    height = _ABOVE + _PANEL + below
    figure.set_size_inches(WIDTH, height)
    axes.set_position((0.12, below / height, 0.855, _PANEL / height))


def plot(profile: Profile, figure: str = "inter", axes: Axes | None = None) -> Axes:
    """Draw one of the paper's figures for a profile, and return its axes.

    Args:
        profile: a measured profile or that of a baseline.
        figure: a name of `PANELS`. Figures of the paper: `inter` (1), `intra` (3), `attention` (4, as shares), `recall`
            (5). Further ones: `controls` (real minus control), `flow` (the loss if layers cannot attend to the image),
            `segments` (the number of monotone segments by prominence). Of the states and the attention: `steps`
            (cosines before and after a layer), `norms` (image over text), `integration` (real against blank image),
            `image_attention` (weight minus norm, and the instruction's weight). `lens`: the tokens that LogitLens
            decodes in the first drawn sample.
        axes: the axes to draw on; None creates new axes with pyplot, which a notebook displays.

    Raises:
        LookupError: no figure has that name.
        ValueError: the profile has no drawn sample for `lens`, like that of a baseline.
    """
    names = (*PANELS, "lens")
    if figure not in names:
        hint = did_you_mean(figure, names)
        raise LookupError(f"there is no figure {figure!r}; the figures of a profile are {', '.join(names)}{hint}")
    if figure == "lens" and not profile.drawings:
        raise ValueError(f"{profile.pair} has no drawn sample to decode; measure the pair, a baseline stores none")
    if axes is None:
        from matplotlib import pyplot

        axes = pyplot.subplots(figsize=(WIDTH * 1.2, HEIGHT * 1.2), layout="constrained")[1]
    if figure == "lens":
        draw_decoded(axes, profile.drawings[0], phase_reading(profile))
        title = f"LogitLens of sample {printable(short_name(profile.drawings[0].sample_id))}"
    else:
        title, draw = PANELS[figure]
        draw(axes, profile, phase_reading(profile), None)
    _panel_title(axes, f"{title}, {printable(short_name(profile.pair))}")
    return axes


def _panel_title(axes: Axes, text: str) -> None:
    axes.set_title(text, parse_math=False, loc="left", fontsize=10, color=INK.light, pad=22)


def _title(figure: Figure, text: str) -> None:
    figure.suptitle(printable(text), parse_math=False, color=INK.light, fontsize=11, x=0.01, ha="left")


def main() -> None:
    """Measure a pair and write its figure to a file."""
    from harness.measurement.measure import measure
    from harness.models.registry import find_model
    from harness.models.vlm import load_vlm
    from harness.storage.cache_directory import default_cache

    parser = argparse.ArgumentParser(prog="python -m harness.report.figures", description=main.__doc__)
    parser.add_argument("model")
    parser.add_argument("dataset")
    parser.add_argument("file", type=Path, help="image file to write; its suffix sets the format")
    parser.add_argument("--samples", type=int, help="number of samples; default: the number that the dataset declares")
    parser.add_argument("--against", metavar="MODEL2", help="a second model to draw over the relative depth")
    options = parser.parse_args()
    cache = default_cache()

    def measured(name: str) -> Profile:
        vlm = load_vlm(find_model(name), cache=cache)
        return measure(vlm, options.dataset, samples=options.samples, cache=cache)

    profile = measured(options.model)
    other = None if options.against is None else measured(options.against)
    phase_figure(profile, against=other).savefig(options.file, dpi=160)


if __name__ == "__main__":
    main()
