"""A line of `vlm-phase doctor`: a mark, a name, a text and the command that helps."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from harness.report.layout import fold

_MARK_WIDTH = 9
# The longest command of a known pair fits into 80 columns.
_COMMAND_INDENT = " " * 4


class CheckMark(StrEnum):
    """The outcome of a check: fine, absent but obtainable, or in the way of a measurement."""

    OK = "ok"
    MISSING = "missing"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class CheckLine:
    """One check: its name, its outcome, a text, and the command that obtains or repairs it, if any."""

    name: str
    mark: CheckMark
    text: str
    command: str = ""

    def printed(self, width: int) -> list[str]:
        """Return the lines to print; a command has a line of its own, so that it can be copied."""
        lines = fold(f"{self.mark.ljust(_MARK_WIDTH)}{self.name}: {self.text}", width, hanging_indent=_MARK_WIDTH + 2)
        return [*lines, f"{_COMMAND_INDENT}{self.command}"] if self.command else lines
