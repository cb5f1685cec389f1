"""The command `python -m harness.lab.simulation`: false-alarm and detection rates of the decision rule."""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from harness.errors import PhaseError
from harness.lab.simulation.rates_page import bar_lines, detection_table, error_rates_page, false_alarm_table
from harness.lab.simulation.simulation_run import SimulationOutcome, full_plan, quick_plan, run_plan
from harness.storage.files import write_atomically

_PROGRAM = "python -m harness.lab.simulation"


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 where every bar was reached and 1 where one was missed; prints the tables and writes the page."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(given)
    plan = quick_plan(options.seed) if options.quick else full_plan(options.seed)
    plan = replace(plan, suites=options.suites or plan.suites, repetitions=options.repetitions or plan.repetitions)
    try:
        if options.write is not None:
            _check_writable(options.write)
        return report(run_plan(plan, options.jobs), options.write, shlex.join([*_PROGRAM.split(), *given]))
    except PhaseError as error:
        print(f"{_PROGRAM}: {error}", file=sys.stderr)
        return 2


def report(outcome: SimulationOutcome, page: Path | None, command: str) -> int:
    """Return the exit code; prints the tables and what came of the bars, and writes the page where one is named.

    Raises:
        PhaseError: the page cannot be written.
    """
    print(false_alarm_table(outcome, "simple"), end="\n\n")
    for paired in (True, False):
        print(detection_table(outcome, "simple", paired=paired), end="\n\n")
    print("\n".join(bar_lines(outcome)))
    for line in (*outcome.paired.lines, *outcome.unpaired.lines):
        print(f"false alarm: {line}")
    for sentence in outcome.missed:
        print(f"MISSED: {sentence}")
    print(f"{outcome.seconds:.0f} s, {outcome.cpu_seconds:.0f} s of processor time")
    if page is not None:
        try:
            write_atomically(page, error_rates_page(outcome, command).encode())
        except OSError as error:
            raise PhaseError(
                f"{page} cannot be written: {error.strerror}; choose another place with --write."
            ) from None
        print(f"wrote {page}")
    return 1 if outcome.missed else 0


def _check_writable(page: Path) -> None:
    """Before the work, since the page is written after it.

    Raises:
        PhaseError: `page` is a directory or its directory cannot be written in.
    """
    folder = next(parent for parent in page.absolute().parents if parent.exists())
    try:
        if page.is_dir():
            raise IsADirectoryError
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        raise PhaseError(f"{page} cannot be written; name a file in a directory of yours with --write.") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=_PROGRAM, description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few draws, about 20 seconds")
    parser.add_argument("--seed", type=_whole(0), default=0, help="fixes every number (default: 0)")
    parser.add_argument("--jobs", type=_whole(1), default=2, help="processes; they change no number (default: 2)")
    parser.add_argument("--suites", type=_whole(1), help="paired suites; a tenth as many unpaired ones are drawn")
    parser.add_argument(
        "--repetitions", type=_whole(1), help="of each change at each n; seven times as many where there is a bar"
    )
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables with their description there")
    return parser


def _whole(least: int) -> Callable[[str], int]:
    """Return the type of an option that is a whole number and not below `least`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} on")
        return int(text)

    return parse


if __name__ == "__main__":
    sys.exit(main())
