"""Outputs that the release programs have in common: options, JSON records, pages, tables, sentences and errors."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from harness.storage.files import write_atomically
from harness.storage.json_text import dump

_MARKDOWN = "github"
_LONGEST = 300  # characters of a sentence


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Add --json and --write, the options for the two files that `write_outputs` writes."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to FILE as JSON")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the results to PAGE in Markdown")


def write_outputs(options: argparse.Namespace, record: Mapping[str, Any], page: Callable[[], str]) -> None:
    """Write the requested files.

    Args:
        options: parsed options with `json` and `write`.
        record: the results for JSON.
        page: returns the page; called only if it was requested.

    Raises:
        OSError: a file cannot be written.
    """
    if options.json is not None:
        write_atomically(options.json, dump(record))
    if options.write is not None:
        write_atomically(options.write, page().encode())


def command_line(program: str, arguments: Sequence[str]) -> str:
    """Return the command as a user types it in a shell."""
    return f"{program} {shlex.join(arguments)}".rstrip()


def format_table(rows: Sequence[Sequence[Any]], headers: Sequence[str], *, markdown: bool = False) -> str:
    """Return rows as a table in plain text or Markdown; None becomes a hyphen."""
    cells = [["-" if cell is None else str(cell) for cell in row] for row in rows]
    if markdown:
        cells = [[cell.replace("|", "\\|") for cell in row] for row in cells]
    return tabulate(cells, headers, tablefmt=_MARKDOWN if markdown else "simple", disable_numparse=True)


def first_sentence(text: str) -> str:
    """Return the first sentence of a message, on one line."""
    line = " ".join(text.split())
    return re.split(r"[.!?] ", line)[0].rstrip(".")[:_LONGEST]


def error_sentence(error: BaseException) -> str:
    """Return the type of an error and the first sentence of its message, on one line."""
    return f"{type(error).__name__}: {first_sentence(str(error))}"


def describe_failure(error: Exception) -> str:
    """Return the message of an error that ends a program, or the file that cannot be written and the reason."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename} cannot be written ({error.strerror})"
    return str(error)
