"""Lines that fit a terminal: folded at words, and tables whose cells are folded where they would be too wide."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from tabulate import tabulate

from harness.errors import printable

LEAST_WIDTH = 60
# pytest indents a failure's message by eight of the 80 columns that every terminal has.
MESSAGE_WIDTH = 72
# What pytest writes before a reason, the place or the name of a test, takes the rest of a line.
_SHORT_REASON = 30
# A blank that no line is folded at.
_KEPT = "\u00a0"
# Blanks that tabulate puts between columns, and by how much it has a column wider than its header.
_GAP, _MORE = 2, 2


class Line(NamedTuple):
    """A line of the terminal and its colour, a name that pytest's terminal writer knows; empty for none."""

    text: str
    colour: str = ""


def terminal_width() -> int:
    """How many columns a line may have: the terminal's or those of COLUMNS, 80 where there is none, 60 at least."""
    return max(LEAST_WIDTH, shutil.get_terminal_size().columns)


def unbroken(text: str) -> str:
    """Return the text as one word, at which `folded` breaks no line: a path, a number with what it is."""
    return text.replace(" ", _KEPT)


def join_unbroken(*pieces: str) -> str:
    """Join pieces with blanks; the line is folded between them only."""
    return " ".join(map(unbroken, pieces))


def fold(text: str, width: int, hanging_indent: int = 2, first_offset: int = 0) -> list[str]:
    """The text in lines of at most `width` characters, broken between words; what a terminal would obey is escaped.

    Words are never broken: paths, ids and what is `kept` together may be longer than a line.

    Args:
        text: one line; the blanks that it begins with are its indentation.
        width: of a line.
        hanging_indent: by how much more the second and later lines are indented.
        first_offset: columns of the first line that something else stands in.
    """
    text = _escaped(text)
    indent = len(text) - len(text.lstrip(" "))
    lines = textwrap.wrap(
        text.lstrip(" "),
        width,
        initial_indent=" " * (first_offset + indent),
        subsequent_indent=" " * (indent + hanging_indent),
        break_long_words=False,
        break_on_hyphens=False,
    )
    if not lines:
        return [""]
    lines[0] = lines[0][first_offset:]
    return [line.replace(_KEPT, " ") for line in lines]


def reason_text(head: str, reason: str) -> str:
    """A reason of a skip or an expected failure as pytest's summary shows it: on lines of its own where it is long."""
    if len(f"{head} {reason}") <= _SHORT_REASON:
        return f"{head} {printable(reason)}"
    return "\n".join([head, *fold(f"    {reason}", MESSAGE_WIDTH, hanging_indent=0)])


def labelled_lines(name: str, text: str, width: int, column: int) -> list[str]:
    """Return the text folded beside a name, all its lines beginning at `column`."""
    first, *others = fold(f"{unbroken('  ' + name.ljust(column - 3))} {text}", width, hanging_indent=column)
    return [first, *others]


def table_lines(headers: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None) -> list[str]:
    """The lines of a table; cells of the widest columns are folded where it would be wider than `width`.

    Words are never broken, so a table of long names may still be wider.
    """
    cells = [[_escaped(cell) for cell in row] for row in (headers, *rows)]
    if width is not None:
        room = width - _GAP * (len(headers) - 1)
        if sum(_least_width(column) for column in zip(*cells, strict=True)) > room:
            cells = [[cell.replace(_KEPT, " ") for cell in row] for row in cells]
        widths = _column_widths(list(zip(*cells, strict=True)), room)
        cell_widths = [[least - _MORE for least in widths], *[widths] * len(rows)]
        cells = [list(map(_fold_cell, *cells_and_widths)) for cells_and_widths in zip(cells, cell_widths, strict=True)]
    cells = [[cell.replace(_KEPT, " ") for cell in row] for row in cells]
    table = tabulate(cells[1:], headers=cells[0], tablefmt="simple", disable_numparse=True)
    return [line.rstrip() for line in table.splitlines()]


def _escaped(text: str) -> str:
    return _KEPT.join(printable(part) for part in text.split(_KEPT))


def _fold_cell(cell: str, width: int) -> str:
    return "\n".join(fold(cell, max(1, width), hanging_indent=0))


def _column_widths(columns: Sequence[Sequence[str]], width: int) -> list[int]:
    """How wide each column may be: the widest give way, none below its longest word."""
    widths = [max([len(header) + _MORE, *map(len, cells)]) for header, *cells in columns]
    least = [_least_width(column) for column in columns]
    while sum(widths) > width and widths != least:
        widest = max(range(len(widths)), key=lambda index: (widths[index] > least[index], widths[index]))
        widths[widest] -= 1
    return widths


def _least_width(column: Sequence[str]) -> int:
    header, *cells = ([len(word) for word in cell.split(" ")] for cell in column)
    return max([max(header) + _MORE, *map(max, cells)])
