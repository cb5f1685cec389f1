"""The outcome of a run, printed after pytest's short test summary, directly before pytest's last line."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from harness.plugin.brief_failures import shorten_failures
from harness.plugin.fixtures import SESSION
from harness.plugin.outputs import output_problems, write_lines
from harness.report.layout import terminal_width


class LastLines:
    """A plugin with the outermost wrapper of the summary; `quiet_times` hides pytest-benchmark's table."""

    def __init__(self) -> None:
        self.quiet_times = False
        self._status = int(pytest.ExitCode.OK)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Keep the exit status after every hook that may change it."""
        self._status = int(session.exitstatus)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: Any, config: pytest.Config) -> Generator[None]:
        """Without -v shorten failures before pytest prints them, and print the outcome of the run at the end."""
        if config.get_verbosity() <= 0:
            shorten_failures(terminalreporter)
        times = getattr(config, "_benchmarksession", None)
        if self.quiet_times and times is not None:
            # pytest-benchmark has no hook that hides its table in some runs only.
            times.quiet = True
        yield
        findings = config.stash[SESSION].results
        if not (findings.profiles or findings.unmeasured):
            return
        from harness.report.closing import run_outcome
        from harness.report.outcomes import pair_outcomes

        failed = self._status != pytest.ExitCode.OK
        outcome = run_outcome(
            findings,
            pair_outcomes(findings),
            failed=failed,
            interrupted=self._status == pytest.ExitCode.INTERRUPTED,
            problems=output_problems(config),
        )
        write_lines(terminalreporter, outcome.lines(terminal_width()))
        if outcome.category:
            terminalreporter.stats[outcome.category] = [outcome] * outcome.count
        if failed:
            # pytest's last line is red if this category exists; an empty one is not printed.
            terminalreporter.stats.setdefault("failed", [])
