"""`python -m harness.releases.versions`: run the type sweep and the bundled pairs with several releases."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from harness.errors import PhaseError
from harness.releases.environments import Runner, is_number, run_command
from harness.releases.versions.cell_outcome import CHECKOUT, PARTS, TORCH, TRANSFORMERS, cells_of
from harness.releases.versions.matrix import Matrix
from harness.releases.versions.versions_page import findings, matrix_table, versions_page
from harness.storage.cache_directory import default_cache
from harness.storage.files import write_atomically
from harness.storage.json_text import dump

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
            if options.json is not None:
                write_atomically(options.json, dump({"cells": [asdict(outcome) for outcome in outcomes]}))
            if options.write is not None:
                page = versions_page(outcomes, shlex.join([*_PROGRAM.split(), *arguments]), CHECKOUT)
                write_atomically(options.write, page.encode())
    except (PhaseError, OSError) as error:
        reason = f"{error.filename} cannot be written ({error.strerror})" if isinstance(error, OSError) else error
        print(f"{_PROGRAM}: {reason}", file=sys.stderr)
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
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the outcomes of all cells")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the matrix and the findings in Markdown")
    return parser


def _version(text: str) -> str:
    if not is_number(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no version number, such as 5.8.1")
    return text


if __name__ == "__main__":
    sys.exit(main())
