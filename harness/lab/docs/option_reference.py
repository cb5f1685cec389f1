"""The reference of the `--phase-` options as a Markdown table, made of what pytest itself is told about them.

`python -m harness.lab.docs.option_reference README.md` writes it between the markers `<!-- options: begin -->` and
`<!-- options: end -->` of a page; without a page it is printed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from harness.lab.docs.pages import compact_table, rewrite_block
from harness.run.options import add_options
from harness.storage.templates import render

if TYPE_CHECKING:
    import pytest

BLOCK = "options"
_PROGRAM = "python -m harness.lab.docs.option_reference"
_NOTHING = "-"


@dataclass
class OptionRecord:
    """Stands where pytest's parser and its group do, and keeps what it is told: options and ini values by name."""

    options: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    inis: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def getgroup(self, *_: str) -> OptionRecord:
        """The group of that name: there is one."""
        return self

    def addoption(self, name: str, **settings: Any) -> None:
        """Keeps an option."""
        self.options[name] = settings

    def addini(self, name: str, **settings: Any) -> None:
        """Keeps an ini value."""
        self.inis[name] = settings


def option_record() -> OptionRecord:
    """The options and ini values of this project, in the order in which they are added."""
    record = OptionRecord()
    add_options(cast("pytest.Parser", record))
    return record


def option_table() -> str:
    """A Markdown table of every `--phase-` option: itself, its ini twin, its default, and what it means."""
    record = option_record()
    rows = []
    for name, settings in record.options.items():
        text, _, default = settings["help"].partition(" Default: ")
        ini = name.removeprefix("--").replace("-", "_")
        rows.append(
            [
                f"`{name} {settings['metavar']}`" if "metavar" in settings else f"`{name}`",
                f"`{ini}`" if ini in record.inis else _NOTHING,
                _default(default.removesuffix("."), flag=settings.get("action") == "store_true"),
                _sentence(text),
            ]
        )
    return render("harness.lab.docs", "options.md.jinja", {"rows": rows, "table": compact_table}).strip()


def main(arguments: list[str] | None = None) -> int:
    """Writes the table into a page, or prints it; returns 0, or 2 where the page has no place for it."""
    return rewrite_block(_PROGRAM, BLOCK, option_table(), arguments)


def _default(text: str, *, flag: bool) -> str:
    """A default as the help words it; one that is a value stands there as code."""
    if flag:
        return "off"
    value = re.fullmatch(r"'(.*)'", text)
    if value is not None:
        text = f"`{value[1]}`" if value[1] else ""
    return text or _NOTHING


def _sentence(text: str) -> str:
    """A help text as a cell: without the full stop, and what a page would take for mark-up as code."""
    return re.sub(r"(\$?\w*_\w+|--phase-[\w-]+|NAME=DIR|DIR/[\w.]+|ORG/NAME|fixture:NAME)", r"`\1`", text.rstrip("."))


if __name__ == "__main__":
    sys.exit(main())
