"""`python -m harness.releases.versions`: run the type sweep and the bundled pairs with several releases."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict

from harness.errors import PhaseError
from harness.releases.environments import Runner, is_number, run_command
from harness.releases.release_outputs import add_output_options, command_line, describe_failure, write_outputs
from harness.releases.versions.cell_outcome import CHECKOUT, PARTS, TORCH, TRANSFORMERS, cells_of
from harness.releases.versions.matrix import Matrix
from harness.releases.versions.versions_page import findings, matrix_table, versions_page
from harness.storage.cache_directory import default_cache

_PROGRAM = "python -m harness.releases.versions"


def main(arguments: Sequence[str] | None = None, run: Runner = run_command) -> int:
    """Run the matrix, print it with the findings, and write the requested files after every cell.

    Return 0 if every cell installs, no type fails and no pair differs; 1 if not; 2 after an error.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(arguments)
    matrix = Matrix(
        results=default_cache() / "versions",
        parts=(options.only,) if options.only else tuple(PARTS),
        anew=options.anew,
        run=run,
    )
    outcomes = []
    try:
        for cell in cells_of(options.transformers, options.torch):
            outcomes.append(matrix.run_cell(cell))
            write_outputs(
                options,
                {"cells": [asdict(outcome) for outcome in outcomes]},
                lambda: versions_page(outcomes, command_line(_PROGRAM, arguments), CHECKOUT),
            )
    except (PhaseError, OSError) as error:
        print(f"{_PROGRAM}: {describe_failure(error)}", file=sys.stderr)
        return 2
    print(matrix_table(outcomes))
    print("\n".join(["", *findings(outcomes)]))
    return 0 if all(outcome.passed for outcome in outcomes) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=_PROGRAM, description=__doc__)
    for name, releases in (("transformers", TRANSFORMERS), ("torch", TORCH)):
        parser.add_argument(
            f"--{name}",
            action="append",
            default=[],
            metavar="V",
            type=_version,
            help=f"a release of {name}; may be repeated (default if neither library is named: {', '.join(releases)})",
        )
    parser.add_argument("--only", choices=tuple(PARTS), help="run only the type sweep or only the bundled pairs")
    parser.add_argument("--anew", action="store_true", help="run finished cells again")
    add_output_options(parser)
    return parser


def _version(text: str) -> str:
    if not is_number(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no version number, such as 5.8.1")
    return text


if __name__ == "__main__":
    sys.exit(main())
