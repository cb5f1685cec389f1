"""Markdown tables, and generated blocks of a page between two markers."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from harness.errors import PhaseError, printable
from harness.storage.files import write_atomically


class PageBlockError(PhaseError):
    """A page has no such block or several of them."""


def padded_table(rows: Sequence[Sequence[object]], headers: Sequence[str], style: str = "github") -> str:
    """Return a table with aligned columns, in a style of tabulate."""
    return tabulate(rows, headers=headers, tablefmt=style, disable_numparse=True)


def compact_table(rows: Sequence[Sequence[str]], headers: Sequence[str]) -> str:
    """Return a Markdown table without padding, so that a long cell does not widen all rows."""
    cells = [[" ".join(cell.replace("|", r"\|").split()) for cell in row] for row in rows]
    title, rule, *lines = padded_table(cells, headers).splitlines()
    return "\n".join(re.sub(" +", " ", line) for line in (title, re.sub("-+", "---", rule), *lines))


def with_block(text: str, name: str, content: str) -> str:
    """Return the page with new content between its markers `<!-- NAME: begin -->` and `<!-- NAME: end -->`.

    Raises:
        PageBlockError: a marker is missing or repeated, or the order is wrong.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise PageBlockError(f"there is no block {name}: put {begin} and, below it, {end} into the page once")
    return f"{text[: text.index(begin)]}{begin}\n\n{content.strip()}\n\n{text[text.index(end) :]}"


def block_of(text: str, name: str) -> str:
    """Return the content of a block of a page; empty if the page has no such block."""
    content = re.search(f"<!-- {name}: begin -->(.*?)<!-- {name}: end -->", text, re.DOTALL)
    return content[1].strip() if content else ""


def rewrite_block(program: str, name: str, content: str, arguments: Sequence[str] | None = None) -> int:
    """Write a block into the page that the command line names, or print it if none is named.

    Args:
        program: the command, for messages.
        name: the name of the block.
        content: the content of the block.
        arguments: the command-line arguments; None for those of this process.

    Returns:
        The exit status: 0, or 2 if the page has no such block or cannot be written; the page is then unchanged.
    """
    parser = argparse.ArgumentParser(prog=program, description=f"Write the block {name} of a Markdown page.")
    parser.add_argument("page", type=Path, nargs="?", help="path of the page; without it the block is printed")
    page: Path | None = parser.parse_args(arguments).page
    if page is None:
        print(content.strip())
        return 0
    try:
        write_atomically(page, with_block(page.read_text(encoding="utf-8"), name, content).encode())
    except (PhaseError, OSError, UnicodeDecodeError) as error:
        print(f"{program}: {printable(str(page))}: {error}", file=sys.stderr)
        return 2
    return 0
