"""`python -m harness.releases`: which vision-language types changed inside from one release to the next."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from importlib.util import find_spec

import torch

from harness.errors import PhaseError
from harness.releases.commands import Runner, run_command
from harness.releases.diff.release_steps import ReleaseStep, ReleaseWalk, UnusableReleaseError
from harness.releases.diff.release_verdict import ALARMS, ReleaseVerdict
from harness.releases.diff.releases_page import releases_page, step_text
from harness.releases.environments import INSTALLED, Release
from harness.releases.release_outputs import add_output_options, command_line, describe_failure, write_outputs
from harness.storage.cache_directory import default_cache

_PROGRAM = "python -m harness.releases"
# `git bisect run` skips a commit at the first exit status, and ends at the second.
_SKIP, _STOP = 125, 128
# The older release has nothing to compare with, so no commit can be judged.
_WITHOUT_OLDER = (ReleaseVerdict.NEW, ReleaseVerdict.FAILED_BEFORE)
_WITHOUT_NEWER = (ReleaseVerdict.FAILED, ReleaseVerdict.GONE, ReleaseVerdict.REFUSED)


def main(arguments: Sequence[str] | None = None, run: Runner = run_command) -> int:
    """Compare the releases, print the changes of each step, and write the requested files after every step.

    Return 0 if nothing changed inside, 1 if a type did, 2 after an error. With --checkout, 125 means that the checkout
    or a type of --types in it cannot be measured, and 128 stands for any other error.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    options = read_options(arguments)
    steps: list[ReleaseStep] = []
    try:
        releases = _releases(options)
        if len(releases) < 2:
            raise PhaseError("give two releases or more, such as 5.4.0 installed")
        for step in ReleaseWalk(releases, options.types, default_cache() / "releases.log", run).steps():
            steps.append(step)
            print(f"\n{step_text(step)}", flush=True)
            write_outputs(
                options,
                {"steps": [step.record() for step in steps]},
                lambda: releases_page(steps, command_line(_PROGRAM, arguments), _versions()),
            )
    except UnusableReleaseError as error:
        print(f"{_PROGRAM}: {error}", file=sys.stderr)
        if options.checkout:
            return _SKIP if error.release is releases[-1] else _STOP
        return 2
    except (PhaseError, OSError) as error:
        print(f"{_PROGRAM}: {describe_failure(error)}", file=sys.stderr)
        return _STOP if options.checkout else 2
    if options.checkout and options.types:
        return bisect_status(steps[-1])
    return int(any(step.alarms for step in steps) and not options.warn_only)


def bisect_status(step: ReleaseStep) -> int:
    """Return the status for `git bisect run`: 0, 1 if a type moved, 125 to skip the checkout, 128 to stop."""
    verdicts = {name: change.verdict for name, change in step.changes.items()}
    if any(change.moves for change in step.changes.values()) or ALARMS & {*verdicts.values()} - {*_WITHOUT_NEWER}:
        return 1
    for status, unmeasured in ((_STOP, _WITHOUT_OLDER), (_SKIP, _WITHOUT_NEWER)):
        names = [f"{name} ({verdict})" for name, verdict in verdicts.items() if verdict in unmeasured]
        if names:
            print(f"{_PROGRAM}: these types cannot be compared: {', '.join(names)}", file=sys.stderr)
            return status
    return 0


def _versions() -> dict[str, str]:
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": f"torchvision {metadata.version('torchvision')}"
        if find_spec("torchvision")
        else "no torchvision",
    }


def _releases(options: argparse.Namespace) -> list[Release]:
    texts = [*options.releases, *([options.checkout] if options.checkout else [])]
    if not options.torch:
        return [Release.parse(text) for text in texts]
    return [Release.parse(text, torch) for text in texts or [INSTALLED] for torch in options.torch]


def read_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the parsed options; misuse ends the program with status 2."""
    parser = argparse.ArgumentParser(prog=_PROGRAM, description=__doc__)
    parser.add_argument(
        "releases",
        nargs="*",
        metavar="RELEASE",
        help="releases of transformers, in the order of the steps: a number, the word installed, or the directory of a "
        "checkout",
    )
    parser.add_argument("--checkout", metavar="DIR", help="the last release is this checkout; made for git bisect")
    parser.add_argument("--torch", nargs=2, metavar=("FROM", "TO"), help="compare two releases of torch")
    parser.add_argument(
        "--types", nargs="+", action="extend", default=[], metavar="TYPE", help="compare these types only"
    )
    add_output_options(parser)
    parser.add_argument("--warn-only", action="store_true", help="exit with status 0 although a type changed")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
