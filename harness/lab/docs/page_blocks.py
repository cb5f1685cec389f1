"""Blocks of a page that a program writes: what stands between two markers of a Markdown file, and nothing else."""

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


def block_of(text: str, name: str) -> str:
    """What stands between the markers `<!-- NAME: begin -->` and `<!-- NAME: end -->` of a page.

    Raises:
        PageBlockError: one of the markers is missing, or is there twice.
    """
    begin, end = _markers(name)
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise PageBlockError(f"there is no block {name}: put {begin} and, below it, {end} where it is to stand, once")
    return text.partition(begin)[2].partition(end)[0].strip()


def with_block(text: str, name: str, content: str) -> str:
    """The page with other content between its markers.

    Raises:
        PageBlockError: as `block_of`.
    """
    block_of(text, name)
    begin, end = _markers(name)
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n\n{content.strip()}\n\n{end}{rest.partition(end)[2]}"


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown, unpadded: one long cell does not widen every line of the page."""
    cells = [[" ".join(cell.replace("|", r"\|").split()) for cell in row] for row in rows]
    title, rule, *lines = tabulate(cells, headers=headers, tablefmt="github", disable_numparse=True).splitlines()
    return "\n".join(re.sub(" +", " ", line) for line in (title, re.sub("-+", "---", rule), *lines))


def rewrite_block(program: str, name: str, content: str, arguments: Sequence[str] | None = None) -> int:
    """The exit status of a program that writes its block into the page that is named, or prints it where none is.

    Args:
        program: how it is called, for its messages.
        name: of the block.
        content: what is to stand in it.
        arguments: of the command line; None takes those of this process.

    Returns:
        0, or 2 where the page has no such block or cannot be written; it is then untouched.
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


def _markers(name: str) -> tuple[str, str]:
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
