"""The tables of a run, and the page of several runs on different machines."""

from __future__ import annotations

from collections.abc import Sequence

from harness.lab.cost.contestants import CONTESTANTS, PLAIN
from harness.lab.cost.cost_results import SMALL_KIND, CellResult, CostRun
from harness.lab.cost.targets import extra_memory, percent, ratio, targets
from harness.lab.docs.pages import padded_table
from harness.storage.templates import render


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
