"""`python -m harness.lab.cost`: compare the cost of measuring with plain inference, naive code and nnsight."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import transformers

from harness.errors import PhaseError
from harness.lab.cost.breakdown import breakdown_lines, measure_breakdown
from harness.lab.cost.contestants import CONTESTANTS, EVERYTHING, PLAIN
from harness.lab.cost.cost_page import (
    cost_page,
    measurements_table,
    memory_table,
    plotted_cells,
    ratio_plot,
    targets_table,
    times_table,
)
from harness.lab.cost.cost_results import CostRun, read_run, to_json
from harness.lab.cost.cost_run import (
    BATCHES,
    LAYERS,
    PAIRS,
    TOKENS,
    Conditions,
    CostPlan,
    drawn_cells,
    published_cells,
    run_plan,
)
from harness.models.vlm import choose_device
from harness.storage.cache_directory import default_cache
from harness.storage.files import write_atomically

_PROGRAM = "python -m harness.lab.cost"
# By default a CPU runs 2 of the 32 layers, because all 32 need 15 GB of memory and minutes.
_FULL_LAYERS = {"cpu": 2, "cuda": 32}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the requested cells or read stored results; print the tables and write the page.

    Return 0, or 2 after an error.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(arguments)
    transformers.logging.set_verbosity_error()
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        if options.profile:
            _print_breakdowns(_plan(options))
            return 0
        runs = [read_run(file) for file in options.read]
        if not runs:
            runs = [replace(run_plan(_plan(options), _command(arguments)), test_seconds=options.test_seconds)]
            if options.json:
                write_atomically(options.json, to_json(runs[0]).encode())
        for run in runs:
            tables = [targets_table(run), times_table(run.cells), memory_table(run.cells)]
            print(*tables, *([measurements_table(run)] if run.measurements else []), sep="\n\n")
        if options.page:
            write_page(options.page, runs)
    except (PhaseError, LookupError, ValueError, OSError) as error:
        print(f"{_PROGRAM}: {error}", file=sys.stderr)
        return 2
    return 0


def write_page(page: Path, runs: Sequence[CostRun]) -> None:
    """Write the page and, in the same directory, a plot for every run with several prompt lengths.

    Raises:
        OSError: a file cannot be written.
    """
    plots: list[str | None] = []
    for index, run in enumerate(runs):
        cells = plotted_cells(run)
        plots.append(f"{page.stem}{f'-{index + 1}' if index else ''}.png" if cells else None)
        if cells:
            title = f"{cells[0].cell.label} on {run.device_name}, {run.dtype}, {run.date}"
            write_atomically(page.with_name(str(plots[-1])), ratio_plot(cells, title))
    write_atomically(page, cost_page(runs, plots).encode())


def _command(arguments: Sequence[str]) -> str:
    """Return the command line that the page shows; --json is omitted because its path is local."""
    parts = [
        part
        for index, part in enumerate(arguments)
        if not part.startswith("--json") and arguments[index - 1 : index] != ["--json"]
    ]
    return shlex.join([*_PROGRAM.split(), *parts])


def _plan(options: argparse.Namespace) -> CostPlan:
    """Return the plan of the named cells, or of all cells if none is named."""
    device = choose_device(options.device)
    small = options.tokens is not None or options.layers is not None
    everything = not (small or options.full_width is not None or options.pairs is not None)
    cells = []
    if small or everything:
        cells += drawn_cells(options.tokens or TOKENS, options.layers or LAYERS)
    if options.full_width is not None or everything:
        cells += published_cells(options.full_width or _FULL_LAYERS[device.type])
    models = PAIRS if everything else options.pairs or ()
    pairs = [(model, batch) for model in models for batch in options.batches]
    contestants = list(dict.fromkeys([PLAIN, *(options.contestants or CONTESTANTS)]))
    conditions = Conditions(
        contestants, options.rounds, options.budget, options.device, options.dtype, cache=default_cache()
    )
    return CostPlan(cells, pairs, options.samples, conditions)


def _print_breakdowns(plan: CostPlan) -> None:
    selected = [name for name in plan.conditions.contestants if name in CONTESTANTS and name != PLAIN]
    contestant = selected[0] if len(selected) == 1 else EVERYTHING
    for cell, subject in plan.subjects():
        print(f"{cell.label}, {cell.layers} layers, {cell.batch} x {cell.tokens} tokens: {contestant}")
        print("\n".join(breakdown_lines(measure_breakdown(subject, contestant))), end="\n\n")
        del subject


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description=__doc__,
        epilog="Separate the items of a list by commas. Without --tokens, --layers, --full-width and --pairs, "
        "all cells are measured.",
    )
    add = parser.add_argument_group("cells").add_argument
    add("--tokens", type=_numbers, metavar="N,...", help="prompt lengths of the small random-weight models")
    add("--layers", type=_numbers, metavar="N,...", help="depths of the small random-weight models")
    add(
        "--full-width",
        type=_number,
        metavar="LAYERS",
        help="decoder layers, up to 32, of random-weight models with the widths of LLaVA-1.5-7B and "
        "InstructBLIP-Vicuna-7B; 32 need 16 GB in bf16",
    )
    add("--pairs", type=_names(PAIRS), metavar="MODEL,...", help="bundled models, each with its own samples")
    add("--batches", type=_numbers, default=BATCHES, metavar="N,...", help="batch sizes of the pairs")
    add = parser.add_argument_group("measuring").add_argument
    add("--contestants", type=_names(tuple(CONTESTANTS)), metavar="NAME,...", help=", ".join(CONTESTANTS))
    add("--rounds", type=_number, metavar="N", help="rounds in every cell; by default as many as fit into the budget")
    add("--budget", type=float, default=20.0, metavar="S", help="seconds per cell (default: 20); at least 3 rounds run")
    add(
        "--samples",
        type=int,
        metavar="N",
        help="samples in the full measurement of each pair (default: all; 0 omits the full measurements)",
    )
    add("--test-seconds", type=float, metavar="S", help="duration of the project's tests, for the page")
    add("--device", default="auto")
    add("--dtype", default="auto")
    add("--threads", type=_number, metavar="N", help="number of torch's threads on a CPU")
    add = parser.add_argument_group("output").add_argument
    add("--profile", action="store_true", help="print only a breakdown of the time in each cell")
    add("--json", type=Path, metavar="FILE", help="write the results to FILE")
    add(
        "--read",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="read stored results from FILE instead of measuring; may be repeated",
    )
    add("--page", type=Path, metavar="FILE", help="write the page to FILE and its plots to the same directory")
    return parser


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least 1")
    return int(text)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(_number(part) for part in text.split(","))


def _names(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """Return an argparse type for a comma-separated list of names from `known`."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(part.strip() for part in text.split(","))
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"unknown {name!r}; known: {', '.join(known)}")
        return names

    return parse


if __name__ == "__main__":
    sys.exit(main())
