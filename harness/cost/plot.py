"""The plot of the page: time over that of plain inference against tokens, one panel per depth."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.cost.contestants import ATTENTION, EVERYTHING, NAIVE, NNSIGHT, PLAIN, RECALL, SIMILARITY
from harness.cost.results import CellResult
from harness.cost.targets import ratio
from harness.errors import PhaseError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _FAINT, _GRID = "#1b1f24", "#6b7280", "#e5e7eb"
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
    """The plot as PNG of the cells of one topology; both axes logarithmic, bars are the intervals of the medians.

    Raises:
        PhaseError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter
    except ImportError:
        raise PhaseError("drawing needs matplotlib: pip install 'vlm-phase-harness[figures]'") from None
    depths = sorted({result.cell.layers for result in results})
    figure = Figure(figsize=(1.4 + 4.4 * len(depths), 4.6), layout="constrained", facecolor="white")
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
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(min(tokens) * 0.85, max(tokens) * 3.4)
        low, high = axes.get_ylim()
        marks = [mark for mark in (0.9, 1, 1.05, 1.1, 1.25, 1.5, 2, 3, 5, 8, 12, 20, 40) if low <= mark <= high]
        axes.yaxis.set_major_locator(FixedLocator(marks))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
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
    for at, (name, tokens_at, colour) in _apart(
        [(1.0, here[-1].cell.tokens, PLAIN, _FAINT), *ends], (high / low) ** 0.05
    ):
        axes.annotate(
            name, (tokens_at, at), xytext=(9, 0), textcoords="offset points", va="center", fontsize=8, color=colour
        )


def _apart(ends: Sequence[tuple[float, int, str, str]], least: float) -> list[tuple[float, tuple[str, int, str]]]:
    """The heights of the names, moved up until neighbours are the factor `least` apart."""
    placed: list[tuple[float, tuple[str, int, str]]] = []
    for height, tokens, name, colour in sorted(ends):
        floor = placed[-1][0] * least if placed else 0.0
        placed.append((max(height, floor), (name, tokens, colour)))
    return placed
