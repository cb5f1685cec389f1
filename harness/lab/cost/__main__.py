"""`python -m harness.lab.cost`: what measuring costs beside plain inference, the naive way and nnsight."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import transformers

from harness.errors import PhaseError
from harness.lab.cost.breakdown import breakdown, breakdown_lines
from harness.lab.cost.contestants import CONTESTANTS, EVERYTHING, PLAIN
from harness.lab.cost.cost_page import cost_page, memory_table, plotted, ratio_plot, targets_table, times_table
from harness.lab.cost.cost_results import FULL_WIDTH, SMALL_KIND, CostRun, read_run, to_json
from harness.lab.cost.cost_run import BATCHES, LAYERS, PAIRS, TOKENS, Conditions, CostPlan, drawn_cells, run_plan
from harness.models.vlm import choose_device
from harness.storage.cache_directory import default_cache
from harness.storage.files import write_atomically

_PROGRAM = "python -m harness.lab.cost"
# The published prompt has about 600 tokens. All layers are too much for a CPU: it runs a sixteenth of them.
_FULL_TOKENS = 600
_FULL_LAYERS = {"cpu": 2, "cuda": 32}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the cells that are asked for, or reads what was; prints the tables and writes the page.

    Returns 0, or 2 where something stands in the way.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(given)
    transformers.logging.set_verbosity_error()
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        if options.profile:
            _print_breakdowns(_plan(options))
            return 0
        runs = [read_run(file) for file in options.read]
        if not runs:
            runs = [run_plan(_plan(options), _command(given))]
            if options.json:
                write_atomically(options.json, to_json(runs[0]).encode())
        for run in runs:
            print(targets_table(run), times_table(run.cells), memory_table(run.cells), sep="\n\n")
        if options.page:
            write_page(options.page, runs)
    except (PhaseError, LookupError, ValueError, OSError) as error:
        print(f"{_PROGRAM}: {error}", file=sys.stderr)
        return 2
    return 0


def write_page(page: Path, runs: Sequence[CostRun]) -> None:
    """Write the page, and beside it a plot for every run that has several lengths.

    Raises:
        OSError: a file cannot be written.
    """
    plots: list[str | None] = []
    for at, run in enumerate(runs):
        cells = plotted(run)
        plots.append(f"{page.stem}{f'-{at + 1}' if at else ''}.png" if cells else None)
        if cells:
            title = f"{cells[0].cell.label} on {run.device_name}, {run.dtype}, {run.date}"
            write_atomically(page.with_name(str(plots[-1])), ratio_plot(cells, title))
    write_atomically(page, cost_page(runs, plots).encode())


def _command(given: Sequence[str]) -> str:
    """Return the command without the place where the results were kept, which is nobody else's matter."""
    parts = [
        part for at, part in enumerate(given) if not part.startswith("--json") and given[at - 1 : at] != ["--json"]
    ]
    return shlex.join([*_PROGRAM.split(), *parts])


def _plan(options: argparse.Namespace) -> CostPlan:
    """Return the cells that are named; all where none is."""
    device = choose_device(options.device)
    small = options.tokens is not None or options.layers is not None
    everything = not (small or options.full_width is not None or options.pairs is not None)
    cells = []
    if small or everything:
        cells += drawn_cells(SMALL_KIND, options.tokens or TOKENS, options.layers or LAYERS)
    if options.full_width is not None or everything:
        cells += drawn_cells(FULL_WIDTH, (_FULL_TOKENS,), (options.full_width or _FULL_LAYERS[device.type],))
    models = PAIRS if everything else options.pairs or ()
    pairs = [(model, batch) for model in models for batch in options.batches]
    contestants = list(dict.fromkeys([PLAIN, *(options.contestants or CONTESTANTS)]))
    conditions = Conditions(
        contestants, options.rounds, options.budget, options.device, options.dtype, cache=default_cache()
    )
    return CostPlan(cells, pairs, options.samples, conditions)


def _print_breakdowns(plan: CostPlan) -> None:
    wanted = [name for name in plan.conditions.contestants if name in CONTESTANTS and name != PLAIN]
    contestant = wanted[0] if len(wanted) == 1 else EVERYTHING
    for cell, subject in plan.subjects():
        print(f"{cell.label}, {cell.layers} layers, {cell.batch} x {cell.tokens} tokens: {contestant}")
        print("\n".join(breakdown_lines(breakdown(subject, contestant))), end="\n\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description=__doc__,
        epilog="Lists are separated by commas. Without --tokens, --layers, "
        "--full-width and --pairs everything is measured.",
    )
    add = parser.add_argument_group("cells").add_argument
    add("--tokens", type=_numbers, metavar="N,...", help="prompt lengths of the small drawn models")
    add("--layers", type=_numbers, metavar="N,...", help="their depths")
    add("--full-width", type=_number, metavar="LAYERS", help="LLaVA-1.5-7B's widths with so many of its 32 layers")
    add("--pairs", type=_names(PAIRS), metavar="MODEL,...", help="bundled models with their own samples")
    add("--batches", type=_numbers, default=BATCHES, metavar="N,...", help="batch sizes of the pairs")
    add = parser.add_argument_group("measuring").add_argument
    add("--contestants", type=_names(tuple(CONTESTANTS)), metavar="NAME,...", help=", ".join(CONTESTANTS))
    add("--rounds", type=_number, metavar="N", help="so many in every cell; by default what the budget gives")
    add("--budget", type=float, default=20.0, metavar="S", help="seconds a cell (default: 20), 3 rounds at least")
    add("--samples", type=int, metavar="N", help="of a pair's whole measurement; by default all, 0 leaves it out")
    add("--device", default="auto")
    add("--dtype", default="auto")
    add("--threads", type=_number, metavar="N", help="of torch on a CPU")
    add = parser.add_argument_group("output").add_argument
    add("--profile", action="store_true", help="print where the time of a cell goes, and measure nothing else")
    add("--json", type=Path, metavar="FILE", help="keep the results")
    add("--read", type=Path, action="append", default=[], metavar="FILE", help="measure nothing, take these")
    add("--page", type=Path, metavar="FILE", help="write the page there, and its plot beside it")
    return parser


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(_number(part) for part in text.split(","))


def _names(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """Return the type of an option that lists some of `known`."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(part.strip() for part in text.split(","))
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"unknown {name!r}; known: {', '.join(known)}")
        return names

    return parse


if __name__ == "__main__":
    sys.exit(main())
