"""The tables and the plot of a run, and the page of several runs on different machines."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from scipy.optimize import isotonic_regression

from harness.lab.cost.contestants import ATTENTION, CONTESTANTS, EVERYTHING, NAIVE, NNSIGHT, PLAIN, RECALL, SIMILARITY
from harness.lab.cost.cost_results import SMALL_KIND, CellResult, CostRun
from harness.lab.cost.targets import extra_memory, percent, ratio, targets
from harness.lab.docs.pages import padded_table
from harness.storage.templates import render

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


def cost_page(runs: Sequence[CostRun], plots: Sequence[str | None]) -> str:
    """Return the page in Markdown; `plots` are the file names of the runs' plots beside it, None without a plot."""
    data = {
        "runs": list(zip(runs, plots, strict=True)),
        "targets_table": targets_table,
        "times_table": times_table,
        "memory_table": memory_table,
        "contestants": padded_table(
            [[name, contestant.says] for name, contestant in CONTESTANTS.items()], ["contestant", "what it does"]
        ),
    }
    return render("harness.lab.cost", "cost.md.jinja", data)


def targets_table(run: CostRun) -> str:
    """Return every target with its measured value and verdict."""
    rows = []
    for target in targets(run):
        interval = target.basis
        if target.interval is not None:
            interval = f"{' to '.join(target.form(end) for end in target.interval)} ({target.basis})"
        limit, measured = target.form(target.limit), target.form(target.measured)
        rows.append([target.asked, target.where, f"<= {limit}", measured, interval, target.verdict])
    return padded_table(rows, ["what", "where", "target", "measured", "interval", "verdict"])


def times_table(results: Sequence[CellResult]) -> str:
    """Return the ratios of every contestant in every cell, and the plain pass's seconds."""
    names = _names(results)
    rows = []
    for result in results:
        plain = sorted(value for value in result.times[PLAIN] if value is not None)
        ratios = [_ratio_text(result, name, len(plain)) for name in names]
        left_open = "-" if result.left_open is None else percent(result.left_open)
        rows.append([result.cell.title, f"{plain[len(plain) // 2]:.3f} s", len(plain), *ratios, left_open])
    return padded_table(rows, ["cell", PLAIN, "n", *names, "left open"])


def memory_table(results: Sequence[CellResult]) -> str:
    """Return the peaks of every contestant in every cell."""
    names = _names(results)
    rows = []
    for result in results:
        plain = result.peaks[PLAIN]
        peaks = []
        for name in names:
            share = extra_memory(result, name, weights=True)
            peaks.append("-" if share is None else f"{(result.peaks[name] - plain) / 1e6:,.1f} ({percent(share)})")
        rows.append([result.cell.title, f"{result.weights / 1e6:,.0f}", f"{plain / 1e6:,.1f}", *peaks])
    return padded_table(rows, ["cell", "weights", PLAIN, *names])


def plotted(run: CostRun) -> list[CellResult]:
    """Return the cells of the plot: those of the small topology, where several lengths were measured."""
    cells = [result for result in run.cells if result.cell.kind == SMALL_KIND]
    return cells if len({result.cell.tokens for result in cells}) > 1 else []


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
    axes.axhline(1.0, color=_FAINT, lw=1.0, zorder=-1)
    ends = []
    for name, (colour, marker, line) in _STYLES.items():
        ratios = [(result.cell.tokens, ratio(result, name)) for result in here]
        points = [(tokens, measured.median, *measured.interval) for tokens, measured in ratios if measured is not None]
        if not points:
            continue
        tokens, middle, low, high = np.array(points).T
        axes.errorbar(
            tokens,
            middle,
            [middle - low, high - middle],
            color=colour,
            marker=marker,
            ls=line,
            ms=4.5,
            lw=1.5,
            elinewidth=0.9,
        )
        ends.append((middle[-1], tokens[-1], name, colour))
    bottom, top = axes.get_ylim()
    ends.append((1.0, here[-1].cell.tokens, PLAIN, _FAINT))
    ends.sort()
    heights = _apart([end[0] for end in ends], top / bottom)
    for at, (height, last_tokens, name, colour) in zip(heights, ends, strict=True):
        axes.annotate(
            name,
            (last_tokens, height),
            (last_tokens * 1.22, at),
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


def _ratio_text(result: CellResult, name: str, rounds: int) -> str:
    measured = ratio(result, name)
    if measured is None:
        return result.absent.get(name, "-")
    if measured.n == 1:
        return f"{measured.median:.2f} (n = 1)"
    low, high = measured.interval
    n = "" if measured.n == rounds else f"; n = {measured.n}"
    return f"{measured.median:.3f} ({low:.2f} to {high:.2f}{n})"


def _names(results: Sequence[CellResult]) -> list[str]:
    """Return the contestants beside the plain pass that any cell knows, in their own order."""
    known = {name for result in results for name in (*result.times, *result.absent)}
    return [name for name in CONTESTANTS if name in known and name != PLAIN]
