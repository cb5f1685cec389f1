"""The tables and the plot of one run, and the page of several runs."""

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
from harness.lab.cost.targets import extra_memory, format_percent, ratio, targets
from harness.lab.docs.pages import padded_table
from harness.storage.templates import render

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _FAINT, _GRID = "#1b1f24", "#6b7280", "#e5e7eb"
_MARKS = (0.5, 0.7, 0.9, 1, 1.1, 1.25, 1.5, 2, 3, 5, 8, 12, 20, 40)
# Okabe and Ito's colours, distinguishable with colour-vision deficiency; markers differ too.
_STYLES = {
    SIMILARITY: ("#0072B2", "o", "-"),
    ATTENTION: ("#009E73", "s", "-"),
    RECALL: ("#CC79A7", "^", "-"),
    EVERYTHING: ("#D55E00", "D", "-"),
    NNSIGHT: ("#56B4E9", "v", "--"),
    NAIVE: ("#1b1f24", "X", "--"),
}


def cost_page(runs: Sequence[CostRun], plots: Sequence[str | None]) -> str:
    """Return the page in Markdown; `plots` has the file name of each run's plot, or None."""
    data = {
        "runs": list(zip(runs, plots, strict=True)),
        "targets_table": targets_table,
        "times_table": times_table,
        "memory_table": memory_table,
        "measurements_table": measurements_table,
        "contestants": padded_table(
            [[name, contestant.description] for name, contestant in CONTESTANTS.items()], ["contestant", "what it does"]
        ),
    }
    return render("harness.lab.cost", "cost.md.jinja", data)


def targets_table(run: CostRun) -> str:
    """Return a table of the targets with their measured values and verdicts."""
    rows = []
    for target in targets(run):
        interval = target.basis
        if target.interval is not None:
            interval = f"{' to '.join(target.format_number(end) for end in target.interval)} ({target.basis})"
        limit, measured = target.format_number(target.limit), target.format_number(target.measured)
        rows.append([target.title, target.scope, f"<= {limit}", measured, interval, target.verdict])
    return padded_table(rows, ["name", "cells", "target", "measured", "interval", "verdict"])


def times_table(results: Sequence[CellResult]) -> str:
    """Return a table of cells with the plain pass's seconds and every contestant's ratio to it."""
    names = _names(results)
    rows = []
    for result in results:
        plain = sorted(value for value in result.times[PLAIN] if value is not None)
        ratios = [_ratio_text(result, name, len(plain)) for name in names]
        left_open = "-" if result.left_open is None else format_percent(result.left_open)
        rows.append([result.cell.title, f"{plain[len(plain) // 2]:.3f} s", len(plain), *ratios, left_open])
    return padded_table(rows, ["cell", PLAIN, "n", *names, "left open"])


def memory_table(results: Sequence[CellResult]) -> str:
    """Return a table of cells with every contestant's peak memory."""
    names = _names(results)
    rows = []
    for result in results:
        plain = result.peaks[PLAIN]
        peaks = []
        for name in names:
            share = extra_memory(result, name, weights=True)
            peaks.append(
                "-" if share is None else f"{(result.peaks[name] - plain) / 1e6:,.1f} ({format_percent(share)})"
            )
        rows.append([result.cell.title, f"{result.weights / 1e6:,.0f}", f"{plain / 1e6:,.1f}", *peaks])
    return padded_table(rows, ["cell", "weights", PLAIN, *names])


def measurements_table(run: CostRun) -> str:
    """Return a table of the full measurements, each as a multiple of the plain passes of the same samples.

    The last rows have the sums over the pairs and, if it is known, the duration of the tests.
    """
    rows = [
        [m.label, m.samples, f"{m.plain:.1f} s", *(_multiple(seconds, m.plain) for seconds in (m.first, m.warm))]
        for m in run.measurements
    ]
    total = [sum(getattr(m, name) for m in run.measurements) for name in ("samples", "plain", "first", "warm")]
    samples, plain = int(total[0]), total[1]
    rows.append(["all pairs", samples, f"{plain:.1f} s", *(_multiple(seconds, plain) for seconds in total[2:])])
    if run.test_seconds is not None:
        rows.append(["the tests", "-", f"{plain:.1f} s", _multiple(run.test_seconds, plain), "-"])
    return padded_table(rows, ["pair", "samples", "plain passes", "first run", "warm run"])


def plotted_cells(run: CostRun) -> list[CellResult]:
    """Return the cells of the small topology to plot; empty if only one prompt length was measured."""
    cells = [result for result in run.cells if result.cell.kind == SMALL_KIND]
    return cells if len({result.cell.tokens for result in cells}) > 1 else []


def ratio_plot(results: Sequence[CellResult], title: str) -> bytes:
    """Return a PNG plot of cells of one topology; both axes are logarithmic, error bars show intervals of medians."""
    depths = sorted({result.cell.layers for result in results})
    figure = Figure(figsize=(1.4 + 4.4 * len(depths), 5.0), layout="constrained", facecolor="white")
    panels = figure.subplots(1, len(depths), sharey=True, squeeze=False)[0]
    for axes, depth in zip(panels, depths, strict=True):
        panel_results = sorted(
            (result for result in results if result.cell.layers == depth), key=lambda result: result.cell.tokens
        )
        axes.set(xscale="log", yscale="log")
        _draw(axes, panel_results)
        tokens = [result.cell.tokens for result in panel_results]
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
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=170)
    return buffer.getvalue()


def _draw(axes: Axes, panel_results: Sequence[CellResult]) -> None:
    axes.axhline(1.0, color=_FAINT, lw=1.0, zorder=-1)
    ends = []
    for name, (colour, marker, line) in _STYLES.items():
        ratios = [(result.cell.tokens, ratio(result, name)) for result in panel_results]
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
    ends.append((1.0, panel_results[-1].cell.tokens, PLAIN, _FAINT))
    ends.sort()
    heights = _spread_labels([end[0] for end in ends], top / bottom)
    for label_height, (height, last_tokens, name, colour) in zip(heights, ends, strict=True):
        axes.annotate(
            name,
            (last_tokens, height),
            (last_tokens * 1.22, label_height),
            va="center",
            fontsize=8,
            color=colour,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.6, "shrinkA": 1, "shrinkB": 3},
        )


def _spread_labels(heights: Sequence[float], axis_ratio: float) -> list[float]:
    """Return label heights as near as possible to the ascending `heights` without overlap.

    `axis_ratio` is the ratio of the axis limits; a label takes a twentieth of the axis.
    """
    steps = np.arange(len(heights)) * np.log(axis_ratio) / 20.0
    nearest = isotonic_regression(np.log(heights) - steps).x + steps
    return [float(height) for height in np.exp(nearest)]


def _multiple(seconds: float, plain: float) -> str:
    return f"{seconds / plain:.2f} ({seconds:.1f} s)"


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
    """Return the contestants other than the plain pass that occur in any cell, in the order of `CONTESTANTS`."""
    known = {name for result in results for name in (*result.times, *result.absent)}
    return [name for name in CONTESTANTS if name in known and name != PLAIN]
