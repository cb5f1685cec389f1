"""Failures of checks in pytest's FAILURES section: one short message each, because the summary has the rest."""

from __future__ import annotations

from typing import Any

import pytest
from _pytest._code.code import TerminalRepr
from _pytest._io import TerminalWriter

from harness.report.layout import fold

# The attribute of a report with the short message; pytest-xdist sends it to the controller.
_BRIEF = "phase_brief"
# pytest's mark of a message, and the width of the narrowest terminal that is common.
_MARK, _WIDTH = "E   ", 80


class BriefFailure(TerminalRepr):
    """A failure with its short message only; without a crash entry, pytest's short summary does not repeat it."""

    def __init__(self, message: str) -> None:
        self.message = message

    def toterminal(self, tw: TerminalWriter) -> None:
        """Write the message."""
        for line in fold(self.message, _WIDTH - len(_MARK)):
            tw.line(f"{_MARK}{line}", red=True, bold=True)


def add_brief(report: pytest.TestReport, call: pytest.CallInfo[Any]) -> None:
    """Keep the short message of a failed check with the report, for `shorten_failures`."""
    error = None if call.excinfo is None else call.excinfo.value
    # The attribute is set by `harness.checks`.
    brief = getattr(error, "brief", "")
    if report.failed and isinstance(error, AssertionError) and brief:
        setattr(report, _BRIEF, brief)


def shorten_failures(terminalreporter: Any) -> None:
    """Show short messages in the terminal; the reports of other plugins already have the full ones."""
    for report in terminalreporter.stats.get("failed", []):
        if brief := getattr(report, _BRIEF, ""):
            report.longrepr = BriefFailure(brief)
