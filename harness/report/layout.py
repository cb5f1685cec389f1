"""Lines and tables folded to the width of a terminal."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tabulate import tabulate

from harness.errors import printable

LEAST_WIDTH = 60
# 80 columns minus the eight that pytest indents a message by.
MESSAGE_WIDTH = 72
# Longer reasons start a new line, because pytest prints the path or the name of the test before them.
_SHORT_REASON = 30
# A space at which no line is folded.
_NO_BREAK_SPACE = "\u00a0"
# Spaces that tabulate puts between columns, and that it adds to the width of a header.
_GAP, _HEADER_EXTRA = 2, 2


class Line(NamedTuple):
    """A line of the terminal and its colour: a name of pytest's terminal writer, or empty."""

    text: str
    colour: str = ""


def terminal_width() -> int:
    """Return the number of columns: that of the terminal or of COLUMNS, 80 without a terminal, and at least 60."""
    return max(LEAST_WIDTH, shutil.get_terminal_size().columns)


def unbroken(text: str) -> str:
    """Return the text with spaces at which `fold` does not break, as for a path or a number with its unit."""
    return text.replace(" ", _NO_BREAK_SPACE)


def join_unbroken(*pieces: str) -> str:
    """Join pieces with spaces; `fold` breaks the line only between them."""
    return " ".join(map(unbroken, pieces))


def fold(text: str, width: int, hanging_indent: int = 2, first_offset: int = 0) -> list[str]:
    """Fold a text between words into lines of at most `width` characters; control characters are escaped.

    Words are never broken, so paths, ids and `unbroken` texts may be longer than a line.

    Args:
        text: one line; its leading spaces are the indentation.
        width: the number of columns.
        hanging_indent: the additional indentation of the second and later lines.
        first_offset: columns that are already used in the first line.
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
    return [line.replace(_NO_BREAK_SPACE, " ") for line in lines]


def fold_lines(texts: Iterable[str], width: int, colour: str = "") -> list[Line]:
    """Fold texts into lines of at most `width` characters, all in one colour."""
    return [Line(line, colour) for text in texts for line in fold(text, width)]


def reason_text(head: str, reason: str) -> str:
    """Return the reason of a skip or an expected failure; a long one starts a new line in pytest's summary."""
    if len(f"{head} {reason}") <= _SHORT_REASON:
        return f"{head} {printable(reason)}"
    return "\n".join([head, *fold(f"    {reason}", MESSAGE_WIDTH, hanging_indent=0)])


def labelled_lines(name: str, text: str, width: int, column: int) -> list[str]:
    """Return the text folded to the right of a name; all its lines start at `column`."""
    first, *others = fold(f"{unbroken('  ' + name.ljust(column - 3))} {text}", width, hanging_indent=column)
    return [first, *others]


def table_lines(headers: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None) -> list[str]:
    """Return the lines of a table; if it is wider than `width`, cells of its widest columns are folded.

    Words are never broken, so a table of long names may still be wider.
    """
    cells = [[_escaped(cell) for cell in row] for row in (headers, *rows)]
    if width is not None:
        room = width - _GAP * (len(headers) - 1)
        if sum(_least_width(column) for column in zip(*cells, strict=True)) > room:
            cells = [[cell.replace(_NO_BREAK_SPACE, " ") for cell in row] for row in cells]
        widths = _column_widths(list(zip(*cells, strict=True)), room)
        cell_widths = [[least - _HEADER_EXTRA for least in widths], *[widths] * len(rows)]
        cells = [list(map(_fold_cell, *cells_and_widths)) for cells_and_widths in zip(cells, cell_widths, strict=True)]
    cells = [[cell.replace(_NO_BREAK_SPACE, " ") for cell in row] for row in cells]
    table = tabulate(cells[1:], headers=cells[0], tablefmt="simple", disable_numparse=True)
    return [line.rstrip() for line in table.splitlines()]


def _escaped(text: str) -> str:
    return _NO_BREAK_SPACE.join(printable(part) for part in text.split(_NO_BREAK_SPACE))


def _fold_cell(cell: str, width: int) -> str:
    return "\n".join(fold(cell, max(1, width), hanging_indent=0))


def _column_widths(columns: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the width of each column; the widest shrink first, but not below their longest word."""
    widths = [max([len(header) + _HEADER_EXTRA, *map(len, cells)]) for header, *cells in columns]
    least = [_least_width(column) for column in columns]
    while sum(widths) > width and widths != least:
        widest = max(range(len(widths)), key=lambda index: (widths[index] > least[index], widths[index]))
        widths[widest] -= 1
    return widths


def _least_width(column: Sequence[str]) -> int:
    header, *cells = ([len(word) for word in cell.split(" ")] for cell in column)
    return max([max(header) + _HEADER_EXTRA, *map(max, cells)])
