"""The command `python -m harness.lab.unchanged`: real runs with nothing changed, and the alarms that they raise."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from harness.errors import PhaseError
from harness.lab.docs.pages import with_block
from harness.lab.unchanged.run_log import BLOCK, RunLog, read_log, run_line, to_json
from harness.lab.unchanged.unchanged_run import start_run
from harness.lab.unchanged.variation import draw_variations
from harness.storage.files import write_atomically

_PROGRAM = "python -m harness.lab.unchanged"
_PACKAGES = ("torch", "transformers")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the variations or read a log, print it and write its block; return 1 after an alarm, 2 after an error."""
    options = _parser().parse_args(arguments)
    try:
        log = read_log(options.read) if options.read else _run(options)
        print(log.summary())
        if options.page:
            page: Path = options.page
            write_atomically(page, with_block(page.read_text(encoding="utf-8"), BLOCK, log.block()).encode())
    except (PhaseError, OSError, UnicodeDecodeError) as error:
        print(f"{_PROGRAM}: {error}", file=sys.stderr)
        return 2
    return 1 if log.alarmed else 0


def _run(options: argparse.Namespace) -> RunLog:
    """Return the log of all runs; it is written after each of them."""
    import torch

    from harness.profile.environment import device_name, installed_version

    # Without the paths of files, which are those of this machine.
    command = f"{_PROGRAM} --runs {options.runs} --seed {options.seed}"
    command += f" --samples {options.samples}" if options.samples else ""
    versions = {package: installed_version(package) for package in _PACKAGES}
    log = RunLog(datetime.now(UTC).strftime("%Y-%m-%d"), command, device_name(torch.device("cpu")), versions)
    for index, variation in enumerate(draw_variations(options.runs, options.seed), start=1):
        run = start_run(variation, options.samples)
        log = log.with_run(variation, run)
        print(f"{index}/{options.runs} {run_line(variation, run)}", flush=True)
        if options.json:
            write_atomically(options.json, to_json(log).encode())
    return log


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=_PROGRAM, description=__doc__)
    parser.add_argument("--runs", type=_positive, default=20, metavar="N", help="number of runs (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the variations (default: 0)")
    parser.add_argument(
        "--samples",
        type=_positive,
        metavar="N",
        help="samples of each run, 32 or more (default: those of the baseline)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the log to FILE, after every run")
    parser.add_argument("--read", type=Path, metavar="FILE", help="read a log from FILE instead of running")
    parser.add_argument("--page", type=Path, metavar="PAGE", help=f"write the block {BLOCK} of PAGE")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
