"""Tables of pages that programs write, and blocks of a page between two markers."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from harness.errors import PhaseError, shown
from harness.storage.files import write_atomically


class PageBlockError(PhaseError):
    """A page has no such block, or several."""


def padded_table(rows: Sequence[Sequence[object]], headers: Sequence[str], style: str = "github") -> str:
    """Return a table whose columns are aligned in the text, in a style of tabulate."""
    return tabulate(rows, headers=headers, tablefmt=style, disable_numparse=True)


def compact_table(rows: Sequence[Sequence[str]], headers: Sequence[str]) -> str:
    """Return a Markdown table without padding, so that a long cell does not widen every line of the page."""
    cells = [[" ".join(cell.replace("|", r"\|").split()) for cell in row] for row in rows]
    title, rule, *lines = padded_table(cells, headers).splitlines()
    return "\n".join(re.sub(" +", " ", line) for line in (title, re.sub("-+", "---", rule), *lines))


def with_block(text: str, name: str, content: str) -> str:
    """Return the page with other content between its markers `<!-- NAME: begin -->` and `<!-- NAME: end -->`.

    Raises:
        PageBlockError: one of the markers is missing, or is there twice.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise PageBlockError(f"there is no block {name}: put {begin} and, below it, {end} where it is to stand, once")
    return f"{text[: text.index(begin)]}{begin}\n\n{content.strip()}\n\n{text[text.index(end) :]}"


def rewrite_block(program: str, name: str, content: str, arguments: Sequence[str] | None = None) -> int:
    """Write a block into the page that the command line names, or print it where none is named.

    Args:
        program: how it is called, for its messages.
        name: of the block.
        content: of the block.
        arguments: of the command line; None takes those of this process.

    Returns:
        The exit status: 0, or 2 where the page has no such block or cannot be written; it is then untouched.
    """
    parser = argparse.ArgumentParser(prog=program, description=f"Writes the block {name} of a Markdown page.")
    parser.add_argument("page", type=Path, nargs="?", help="the page; without one the block is printed")
    page: Path | None = parser.parse_args(arguments).page
    if page is None:
        print(content.strip())
        return 0
    try:
        write_atomically(page, with_block(page.read_text(encoding="utf-8"), name, content).encode())
    except (PhaseError, OSError, UnicodeDecodeError) as error:
        print(f"{program}: {shown(str(page))}: {error}", file=sys.stderr)
        return 2
    return 0
