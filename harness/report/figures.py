"""The paper's figures for one profile: similarity across and within modalities, attention shares, LogitLens recall.

`python -m harness.report.figures MODEL DATASET FILE` measures a pair and draws it (needs the extra `figures`); with
`--against MODEL2` it lays the inter-modal similarity of two models over one relative depth.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import PhaseError
from harness.phases import phase_reading
from harness.profile import Array, Profile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _FAINT, _GRID = "#1b1f24", "#6b7280", "#e5e7eb"
_SHADES = ("#eef4fb", "#ffffff", "#eef4fb", "#ffffff")
_COLOURS = {
    "inter": "#1f5fa8",
    "inter_instruction": "#7aa6d6",
    "inter_adjusted": "#d1602b",
    "image": "#2a8c67",
    "text": "#8a4fb0",
    "instruction": "#c3a1d6",
    "other": "#9ca3af",
    "self": "#d1602b",
}
_PHASES = ("I alignment", "II intra-modal", "III inter-modal", "IV output")


def phase_figure(profile: Profile, against: Profile | None = None) -> Figure:
    """Figures 1, 3, 4 and 5 of the paper for one profile, as four panels over one depth axis.

    Bands are the middle 80 % of the samples; phases are shaded where the mean inter-modal curve turns. With `against`
    it is one panel instead: the inter-modal similarity of both models over the depth as a share, by which models of
    any depth compare.

    Raises:
        PhaseError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure as MatplotlibFigure
    except ImportError:
        raise PhaseError("drawing needs matplotlib: pip install 'vlm-phase-harness[figures]'") from None
    if against is not None:
        figure = MatplotlibFigure(figsize=(7.6, 4.2), layout="constrained", facecolor="white")
        _overlay_panel(figure.subplots(), profile, against)
        _title(figure, f"{profile.model} against {against.model} on {profile.dataset}: {profile.n} samples")
        return figure
    figure = MatplotlibFigure(figsize=(10.0, 6.6), layout="constrained", facecolor="white")
    panels = figure.subplots(2, 2)
    edges = _edges(profile)
    _similarity_panel(panels[0, 0], profile, edges)
    _group_panel(panels[0, 1], profile, edges)
    _attention_panel(panels[1, 0], profile, edges)
    _recall_panel(panels[1, 1], profile, edges)
    _title(figure, f"{profile.model} on {profile.dataset}: {profile.n} samples, {profile.depth} layers")
    return figure


def _title(figure: Figure, text: str) -> None:
    figure.suptitle(text, color=_INK, fontsize=11, x=0.01, ha="left")


def _edges(profile: Profile) -> list[float]:
    turns = [point.estimate for point in phase_reading(profile).boundaries.turning_points]
    return [0.0, *turns, float(profile.depth)]


def _overlay_panel(axes: Axes, profile: Profile, against: Profile) -> None:
    """Both inter-modal curves over the relative depth, with a mark where each one turns."""
    for one, colour, style in ((profile, _COLOURS["inter"], "-"), (against, _COLOURS["self"], "--")):
        label = f"{one.model}, {one.depth} layers"
        _curve(axes, np.arange(one.depth + 1) / one.depth, one["inter"], colour, label, style=style)
        turns = _edges(one)[1:-1]
        mean = one["inter"].mean(0)
        axes.plot([turn / one.depth for turn in turns], mean[[int(turn) for turn in turns]], "o", color=colour, ms=4.5)
    _dress(axes, [0.0, 1.0], "Inter-modal similarity", "mean cosine")
    axes.set_xlabel("depth: 0 the embeddings, 1 the input of the final norm", fontsize=8.5, color=_FAINT)


def _similarity_panel(axes: Axes, profile: Profile, edges: list[float]) -> None:
    points = np.arange(profile.depth + 1)
    for name, label in (
        ("inter", "image and text tokens"),
        ("inter_instruction", "image and instruction tokens"),
        ("inter_adjusted", "anisotropy-adjusted"),
    ):
        _curve(axes, points, profile[name], _COLOURS[name], label)
    for (control, curves), style in zip(profile.controls.items(), ("--", ":"), strict=False):
        _curve(axes, points, curves["inter"], _FAINT, f"control: {control}", band=False, style=style)
    after = float(profile["post_norm_inter"].mean())
    axes.plot([profile.depth], [after], "o", mfc="white", mec=_COLOURS["inter"], ms=5, label="after the final norm")
    _dress(axes, edges, "Inter-modal similarity", "mean cosine", phases=True)


def _group_panel(axes: Axes, profile: Profile, edges: list[float]) -> None:
    points = np.arange(profile.depth + 1)
    for name in ("image", "text", "instruction"):
        _curve(axes, points, profile[name], _COLOURS[name], f"within the {name} tokens")
    _dress(axes, edges, "Intra-modal similarity", "mean cosine")


def _attention_panel(axes: Axes, profile: Profile, edges: list[float]) -> None:
    # Layers without softmax attention have no shares: the curves go on at the next that has.
    read = np.flatnonzero(profile["norm_self"].any(axis=0))
    for name in ("image", "instruction", "other", "self"):
        _curve(axes, read + 1, profile[f"norm_{name}"][:, read], _COLOURS[name], name)
    _dress(axes, edges, "Norm-based attention of the last token", "share")


def _recall_panel(axes: Axes, profile: Profile, edges: list[float]) -> None:
    points = np.arange(profile.depth + 1)
    for k, colour in ((5, _COLOURS["inter"]), (1, _COLOURS["inter_instruction"])):
        _curve(axes, points, profile[f"recall_{k}"], colour, f"recall, top {k}", band=False)
    _curve(axes, points, profile["recall_chance_5"], _FAINT, "another sample's words, top 5", band=False, style="--")
    _dress(axes, edges, "LogitLens recall at the image tokens", "share of words")


def _curve(axes: Axes, x: Array, rows: Array, colour: str, label: str, *, band: bool = True, style: str = "-") -> None:
    if band:
        low, high = np.quantile(rows, [0.1, 0.9], axis=0)
        axes.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
    axes.plot(x, rows.mean(0), style, color=colour, lw=1.8, label=label)


def _dress(axes: Any, edges: list[float], title: str, unit: str, *, phases: bool = False) -> None:
    for first, last, shade in zip(edges, edges[1:], _SHADES if len(edges) > 2 else (), strict=False):
        axes.axvspan(first, last, color=shade, lw=0, zorder=-2)
    for turn in edges[1:-1]:
        axes.axvline(turn, color=_FAINT, lw=0.7, ls=":", zorder=-1)
    if phases:
        for first, last, name in zip(edges, edges[1:], _PHASES, strict=False):
            short = name if last - first > 0.16 * edges[-1] else name.split()[0]
            axes.text(
                (first + last) / 2,
                1.01,
                short,
                transform=axes.get_xaxis_transform(),
                ha="center",
                va="bottom",
                fontsize=7.5,
                color=_FAINT,
            )
    axes.set_title(title, loc="left", fontsize=9.5, color=_INK, pad=14 if phases else 6)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_xlabel("layer", fontsize=8.5, color=_FAINT)
    axes.set_ylabel(unit, fontsize=8.5, color=_FAINT)
    axes.tick_params(labelsize=8, colors=_FAINT, length=2.5)
    axes.grid(axis="y", color=_GRID, lw=0.7, zorder=-3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_GRID)
    axes.legend(fontsize=7.5, frameon=False, labelcolor=_INK)


def main() -> None:
    """Measures a pair and writes its figure."""
    from harness.measurement import measure
    from harness.models.embedded.cache import default_cache
    from harness.models.registry import find_model
    from harness.models.vlm import load_vlm

    parser = argparse.ArgumentParser(prog="python -m harness.report.figures", description=main.__doc__)
    parser.add_argument("model")
    parser.add_argument("dataset")
    parser.add_argument("file", type=Path, help="picture to write; its ending says which kind")
    parser.add_argument("--samples", type=int, help="as many as the dataset declares where not given")
    parser.add_argument("--against", metavar="MODEL2", help="the model to lay beside it, over the relative depth")
    given = parser.parse_args()
    cache = default_cache()

    def measured(name: str) -> Profile:
        vlm = load_vlm(find_model(name), cache=cache)
        return measure(vlm, given.dataset, samples=given.samples, cache=cache)

    profile = measured(given.model)
    other = None if given.against is None else measured(given.against)
    phase_figure(profile, against=other).savefig(given.file, dpi=160)


if __name__ == "__main__":
    main()
