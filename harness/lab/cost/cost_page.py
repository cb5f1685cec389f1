"""The page of what measuring costs, made of the results of one run or of several on different machines."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from harness.lab.cost.cells import SMALL_KIND
from harness.lab.cost.contestants import CONTESTANTS, PLAIN
from harness.lab.cost.results import CellResult, Run
from harness.lab.cost.targets import extra_memory, findings, percent, place, ratio

_PAGE = """\
# What measuring costs

Time and memory of a forward pass that is measured, beside the same pass left alone, beside the naive way to get the
same numbers, and beside nnsight reading the same states. Written by the command below and by nothing else.

{runs}
## How it is measured

- **Interleaved.** Every contestant runs once a round on the same model and the same inputs, in an order that rotates
  and turns from round to round. A round's time is divided by the plain pass's of the same round; the table has the
  median over rounds. Warm-ups do not count. The naive way drops out where it would use up the time of a cell; a single
  round of it (n = 1) may be the pass in which its memory was recorded, against plain's first.
- **Intervals** are order statistics of the rounds and assume no distribution. They cover at least 95 % from six rounds
  on, 94 % with five, 88 % with four, 75 % with three, 50 % with two and nothing with one.
- **Drawn models** have LLaVA's architecture with random weights: a tower, a projector, Llama layers. Most of their
  tokens are the picture's. No pruned lens likes random weights: what they decode is not often the same. *Left open* is
  the share of image tokens x residual points for which the whole vocabulary had to be read. Each sample has 20 words
  to look for and 20 of another's, three entries each, as many as the captions of a photograph have. The block that
  the lens tries first is learnt from other inputs.
- **LLaVA-1.5-7B's widths** (d = 4,096) run on a CPU with few of its 32 layers, and as few of the tower's in proportion
  (two at least), with the contestants that the targets ask for; on a GPU with all layers and all contestants.
- **Pairs** are the embedded models with their own samples, prompts and words.
- **Memory** is the most that tensors hold at a time during the pass, beyond what was there before. On a CPU it is the
  running sum of every allocation and release that torch's profiler records, exact for whatever torch allocates; on a
  GPU it is the count of torch's allocator. *Weights* are the model's own and held by all alike.
- **Extra** of the fit is the time of a pass less plain's of the same round, the median over rounds; its logarithm is
  fitted by least squares over the logarithms of tokens and layers, with a bootstrap over rounds (95 %).
- **Outside** is the time of a whole measurement of the pair that is not spent in the model's forward passes (the
  probe's work while layers run counts as inside): pictures, prompts, readings. The model is loaded before.

The contestants:

{contestants}
"""

_RUN = """\
## {title}

    {command}

{date} (UTC), {device_name}, {device}, {dtype}, {threads}; {versions}; {seconds:.0f} s.

### Targets

{targets}

{plot}### Times

Times plain: the median of n rounds with its interval.

{times}

### Peak memory

Of the plain pass, in MB; of the others what they hold beyond it, in MB and as a share of weights and activations.

{memory}

"""


def cost_page(runs: Sequence[Run], plots: Sequence[str | None]) -> str:
    """The page in Markdown; `plots` are the file names of the runs' plots beside it, None where one has none."""
    parts = []
    for run, plot in zip(runs, plots, strict=True):
        parts.append(
            _RUN.format(
                title=run.device_name,
                command=run.command,
                date=run.date,
                device_name=run.device_name,
                device=run.device,
                dtype=run.dtype,
                threads=f"{run.threads} thread{'s' * (run.threads != 1)}",
                versions=", ".join(f"{name} {version}" for name, version in run.versions.items()),
                seconds=run.seconds,
                targets=targets_table(run),
                plot="" if plot is None else f"![time over plain inference against tokens]({plot})\n\n",
                times=times_table(run.cells),
                memory=memory_table(run.cells),
            )
        )
    says = [[name, contestant.says] for name, contestant in CONTESTANTS.items()]
    return _PAGE.format(runs="\n".join(parts), contestants=_table(says, ["contestant", "what it does"]))


def targets_table(run: Run) -> str:
    """Every target with what was measured and whether it is met."""
    rows = []
    for found in findings(run):
        interval = found.basis
        if found.interval is not None:
            interval = f"{' to '.join(found.form(end) for end in found.interval)} ({found.basis})"
        rows.append(
            [
                found.asked,
                found.where,
                f"<= {found.form(found.target)}",
                found.form(found.measured),
                interval,
                found.verdict,
            ]
        )
    return _table(rows, ["what", "where", "target", "measured", "interval", "verdict"])


def times_table(results: Sequence[CellResult]) -> str:
    """Ratios of every contestant in every cell, and the plain pass's seconds."""
    names = _names(results)
    rows = []
    for result in results:
        plain = sorted(value for value in result.times[PLAIN] if value is not None)
        cells = [_ratio_text(result, name, len(plain)) for name in names if name != PLAIN]
        left_open = "-" if result.left_open is None else percent(result.left_open)
        rows.append([place(result), f"{plain[len(plain) // 2]:.3f} s", len(plain), *cells, left_open])
    return _table(rows, ["cell", PLAIN, "n", *(name for name in names if name != PLAIN), "left open"])


def memory_table(results: Sequence[CellResult]) -> str:
    """Peaks of every contestant in every cell."""
    names = [name for name in _names(results) if name != PLAIN]
    rows = []
    for result in results:
        plain = result.peaks[PLAIN]
        cells = []
        for name in names:
            share = extra_memory(result, name, weights=True)
            cells.append("-" if share is None else f"{(result.peaks[name] - plain) / 1e6:,.1f} ({percent(share)})")
        rows.append([place(result), f"{result.weights / 1e6:,.0f}", f"{plain / 1e6:,.1f}", *cells])
    return _table(rows, ["cell", "weights", PLAIN, *names])


def plotted(run: Run) -> list[CellResult]:
    """The cells of the plot: those of the small topology, where several lengths were measured."""
    found = [result for result in run.cells if result.cell.kind == SMALL_KIND]
    return found if len({result.cell.tokens for result in found}) > 1 else []


def _ratio_text(result: CellResult, name: str, rounds: int) -> str:
    found = ratio(result, name)
    if found is None:
        return result.absent.get(name, "-")
    low, high = found.interval
    n = "" if found.n == rounds else f"; n = {found.n}"
    return f"{found.median:.2f} (n = 1)" if found.n == 1 else f"{found.median:.3f} ({low:.2f} to {high:.2f}{n})"


def _names(results: Sequence[CellResult]) -> list[str]:
    """The contestants that any cell knows, in their own order."""
    return [name for name in CONTESTANTS if any(name in {*result.times, *result.absent} for result in results)]


def _table(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> str:
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)
