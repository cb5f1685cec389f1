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
from harness.lab.simulation.rates_page import detection_table, error_rates_page, false_alarm_table, requirement_lines
from harness.lab.simulation.simulation_run import SimulationOutcome, full_plan, quick_plan, run_plan
from harness.storage.files import write_atomically

_PROGRAM = "python -m harness.lab.simulation"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the simulation, print the tables and write the page; return 1 if a required rate was missed, else 0."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(arguments)
    plan = quick_plan(options.seed) if options.quick else full_plan(options.seed)
    plan = replace(plan, suites=options.suites or plan.suites, repetitions=options.repetitions or plan.repetitions)
    try:
        if options.write is not None:
            _check_writable(options.write)
        return report(run_plan(plan, options.jobs), options.write, shlex.join([*_PROGRAM.split(), *arguments]))
    except PhaseError as error:
        print(f"{_PROGRAM}: {error}", file=sys.stderr)
        return 2


def report(outcome: SimulationOutcome, page: Path | None, command: str) -> int:
    """Print the tables and the required rates, write the page if one is named, and return the exit code.

    Raises:
        PhaseError: the page cannot be written.
    """
    print(false_alarm_table(outcome, "simple"), end="\n\n")
    for paired in (True, False):
        print(detection_table(outcome, "simple", paired=paired), end="\n\n")
    print("\n".join(requirement_lines(outcome)))
    for line in (*outcome.paired.lines, *outcome.unpaired.lines):
        print(f"false alarm: {line}")
    for sentence in outcome.missed_requirements:
        print(f"MISSED: {sentence}")
    print(f"{outcome.seconds:.0f} s, {outcome.cpu_seconds:.0f} s of processor time")
    if page is not None:
        try:
            previous = page.read_text(encoding="utf-8") if page.exists() else ""
            write_atomically(page, error_rates_page(outcome, command, previous).encode())
        except OSError as error:
            raise PhaseError(f"{page} cannot be written: {error.strerror}; choose another path with --write.") from None
        print(f"wrote {page}")
    return 1 if outcome.missed_requirements else 0


def _check_writable(page: Path) -> None:
    """Raise before the simulation if the page cannot be written after it.

    Raises:
        PhaseError: `page` is a directory, or its directory is not writable.
    """
    directory = next(parent for parent in page.absolute().parents if parent.exists())
    try:
        if page.is_dir():
            raise IsADirectoryError
        tempfile.TemporaryFile(dir=directory).close()
    except OSError:
        raise PhaseError(f"{page} cannot be written; name a file in a writable directory with --write.") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=_PROGRAM, description=__doc__)
    parser.add_argument("--quick", action="store_true", help="simulate few draws, in about 20 seconds")
    parser.add_argument("--seed", type=_integer(0), default=0, help="seed of all random draws (default: 0)")
    parser.add_argument(
        "--jobs", type=_integer(1), default=2, help="processes; the results do not depend on it (default: 2)"
    )
    parser.add_argument("--suites", type=_integer(1), help="paired suites; a tenth as many unpaired suites run")
    parser.add_argument(
        "--repetitions", type=_integer(1), help="repetitions per change and n; seven times as many for required rates"
    )
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the tables with their description to PAGE")
    return parser


def _integer(minimum: int) -> Callable[[str], int]:
    """Return an argparse type for integers of at least `minimum`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < minimum:
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least {minimum}")
        return int(text)

    return parse


if __name__ == "__main__":
    sys.exit(main())
