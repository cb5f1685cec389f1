"""The plot of the page: time over that of plain inference against tokens, one panel per depth."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from scipy.optimize import isotonic_regression

from harness.lab.cost.contestants import ATTENTION, EVERYTHING, NAIVE, NNSIGHT, PLAIN, RECALL, SIMILARITY
from harness.lab.cost.cost_results import CellResult
from harness.lab.cost.targets import ratio

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _FAINT, _GRID = "#1b1f24", "#6b7280", "#e5e7eb"
_MARKS = (0.5, 0.7, 0.9, 1, 1.1, 1.25, 1.5, 2, 3, 5, 8, 12, 20, 40)
# Okabe and Ito's colours, apart for every kind of colour vision; markers tell them apart without any.
_STYLES = {
    SIMILARITY: ("#0072B2", "o", "-"),
    ATTENTION: ("#009E73", "s", "-"),
    RECALL: ("#CC79A7", "^", "-"),
    EVERYTHING: ("#D55E00", "D", "-"),
    NNSIGHT: ("#56B4E9", "v", "--"),
    NAIVE: ("#1b1f24", "X", "--"),
}


def ratio_plot(results: Sequence[CellResult], title: str) -> bytes:
    """The plot as PNG of the cells of one topology; both axes logarithmic, bars are the intervals of the medians."""
    depths = sorted({result.cell.layers for result in results})
    figure = Figure(figsize=(1.4 + 4.4 * len(depths), 5.0), layout="constrained", facecolor="white")
    panels = figure.subplots(1, len(depths), sharey=True, squeeze=False)[0]
    for axes, depth in zip(panels, depths, strict=True):
        here = sorted(
            (result for result in results if result.cell.layers == depth), key=lambda result: result.cell.tokens
        )
        axes.set(xscale="log", yscale="log")
        _draw(axes, here)
        tokens = [result.cell.tokens for result in here]
        axes.xaxis.set_major_locator(FixedLocator(tokens))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set_xlim(min(tokens) * 0.85, max(tokens) * (max(tokens) / min(tokens)) ** 0.55)
        axes.yaxis.set_major_locator(FixedLocator(_MARKS))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_locator(NullLocator())
        axes.set_title(f"{depth} layers", loc="left", fontsize=10, color=_INK)
        axes.set_xlabel("tokens in the prompt", fontsize=9, color=_INK)
        axes.tick_params(labelsize=8, colors=_INK, which="both", length=2.5)
        axes.grid(axis="y", color=_GRID, lw=0.7, zorder=-3)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    panels[0].set_ylabel("time, x plain inference", fontsize=9, color=_INK)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10, color=_INK)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=170)
    return picture.getvalue()


def _draw(axes: Axes, here: Sequence[CellResult]) -> None:
    """The curves, each named at its end."""
    axes.axhline(1.0, color=_FAINT, lw=1.0, zorder=-1)
    ends = []
    for name, (colour, marker, line) in _STYLES.items():
        found = [(result.cell.tokens, one) for result in here if (one := ratio(result, name)) is not None]
        if not found:
            continue
        tokens, ratios = zip(*found, strict=True)
        middle = [one.median for one in ratios]
        spread = [
            [one.median - one.interval[0] for one in ratios],
            [one.interval[1] - one.median for one in ratios],
        ]
        axes.errorbar(tokens, middle, spread, color=colour, marker=marker, ls=line, ms=4.5, lw=1.5, elinewidth=0.9)
        ends.append((middle[-1], tokens[-1], name, colour))
    low, high = axes.get_ylim()
    ends.append((1.0, here[-1].cell.tokens, PLAIN, _FAINT))
    ends.sort()
    for at, (height, tokens_at, name, colour) in zip(_apart([end[0] for end in ends], high / low), ends, strict=True):
        axes.annotate(
            name,
            (tokens_at, height),
            (tokens_at * 1.22, at),
            va="center",
            fontsize=8,
            color=colour,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.6, "shrinkA": 1, "shrinkB": 3},
        )


def _apart(heights: Sequence[float], whole: float) -> list[float]:
    """Heights for names at these ascending heights: as near as they can be without overlapping.

    `whole` is the ratio of the axis's ends; a name takes a twentieth of its length.
    """
    steps = np.arange(len(heights)) * np.log(whole) / 20.0
    nearest = isotonic_regression(np.log(heights) - steps).x + steps
    return [float(height) for height in np.exp(nearest)]
