"""Edits of a TOML file of tables with text values; comments and other tables stay as they are."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Table = Mapping[str, str]
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


class _Statement(NamedTuple):
    """A complete statement, comment or empty line of a TOML file: its text and its value when parsed alone."""

    text: str
    value: dict[str, Any]

    @property
    def is_header(self) -> bool:
        """True if it begins a table."""
        return self.text.lstrip(" \t").startswith("[")


def edit_tables(text: str, tables: Mapping[str, Table]) -> str:
    """Return the text of a TOML file with other tables; new tables follow at the end.

    An entry with an equal value keeps its line.

    Args:
        text: the content of a valid TOML file, which may be empty.
        tables: the entries of each table to replace, by name; a table without entries is empty.

    Raises:
        ValueError: the text is no TOML, a name or a value has no UTF-8 form, or the tables have a form that cannot be
            edited.
    """
    expected = {**tomllib.loads(text), **{name: dict(table) for name, table in tables.items()}}
    pieces: list[str] = []
    current: str | None = None
    missing = {name: dict(table) for name, table in tables.items()}
    end = 0  # the number of pieces up to the last entry of the current table
    headers: set[str] = set()

    def complete() -> None:
        if current is not None:
            pieces[end:end] = [f"{line}\n" for line in _entries(missing[current])]

    for statement in _statements(text):
        if statement.is_header:
            complete()
            name = next(iter(statement.value))
            current = name if name in tables else None
            headers.add(name)
        elif statement.value and not headers and set(statement.value) & set(tables):
            # The table is written as `table.entry = "value"` or `table = {...}` before the first header.
            continue
        elif statement.value and current is not None:
            ((name, value),) = statement.value.items()
            new = missing[current].pop(name, None)
            if new is not None:
                pieces.append(statement.text if new == value else f"{_entry(name, new)}\n")
                end = len(pieces)
            continue
        pieces.append(statement.text)
        if statement.is_header:
            end = len(pieces)
    complete()
    edited = "".join(pieces)
    for name, table in tables.items():
        if name not in headers:
            gap = "\n" if edited else ""
            edited += "\n".join([f"{gap}[{_quoted_key(name)}]", *_entries(table)]) + "\n"
    if tomllib.loads(edited) != expected:
        raise ValueError("its tables have a form that cannot be edited")
    edited.encode("utf-8")
    return edited


def _statements(text: str) -> Iterator[_Statement]:
    """Yield the statements of a TOML file, each with the end of its line."""
    pending = ""
    lines = text.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    for line in lines:
        pending += f"{line}\n"
        try:
            value = tomllib.loads(pending)
        except tomllib.TOMLDecodeError:
            # The statement continues on the next line.
            continue
        yield _Statement(pending, value)
        pending = ""
    if pending:
        raise ValueError("its tables have a form that cannot be edited")


def _entries(table: Table) -> list[str]:
    return [_entry(name, value) for name, value in table.items()]


def _entry(name: str, value: str) -> str:
    return f"{_quoted_key(name)} = {_quoted(value)}"


def _quoted_key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _quoted(name)


def _quoted(text: str) -> str:
    """Return a text as a TOML basic string."""
    return '"' + "".join(_ESCAPES.get(sign, sign if _is_plain(sign) else f"\\u{ord(sign):04X}") for sign in text) + '"'


def _is_plain(sign: str) -> bool:
    return ord(sign) >= 0x20 and ord(sign) != 0x7F
