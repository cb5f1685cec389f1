"""The header and the summary of a run in pytest's terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any

import pytest

from harness.errors import printable
from harness.measurement.progress import PeriodicLines
from harness.plugin.fixtures import SESSION, is_worker, write_line
from harness.plugin.outputs import session_comparisons, written_outputs
from harness.report.layout import Line, fold, terminal_width, unbroken
from harness.run.option_row import AS_DECLARED


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Print the progress of a run without a terminal, after the session has been made."""
    if not is_worker(config):
        config.stash[SESSION].measured.progress_line = PeriodicLines(lambda line: write_line(config, line))


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Return lines with versions, options and baselines, and a line for each checkpoint whose code is run."""
    options = config.stash[SESSION].options
    update = "on" if options.update else "new only" if options.update_new else "off"
    files = len(list(options.baselines.glob("*/*.json")))
    samples = options.samples or AS_DECLARED
    controls = " ".join(options.controls) or "none"
    stored = f"baselines {unbroken(str(options.baselines))} ({files} files), update {update}"
    if options.against is not None:
        stored = f"against {options.against.name}, measured in this run"
    numbers = (
        f"device {options.device}",
        f"dtype {options.dtype}",
        f"samples {samples}",
        f"seed {options.seed}",
        f"batch size {options.batch_size}",
        f"controls {controls}",
    )
    lines = [
        f"phase: harness {version('vlm-phase-harness')}, torch {version('torch')}, transformers "
        f"{version('transformers')}, {', '.join(map(unbroken, numbers))}",
        f"phase: {stored}, cache {unbroken(str(options.cache))}",
        *(
            f"phase: RUNNING CODE of the checkpoint {unbroken(name)} (--phase-trust-code)"
            for name in options.trusted_models()
        ),
    ]
    return [line for text in lines for line in fold(text, terminal_width(), hanging_indent=len("phase: "))]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the results of each pair, then the matched, written and unused baselines.

    With -q print only verdicts and written files, with -qq only written files and the reason of a failure.
    """
    findings = config.stash[SESSION].results
    for line in findings.messages:
        write_line(config, line)
    verbosity, width = config.get_verbosity(), terminal_width()
    if verbosity >= 0:
        warnings = [line for text in findings.warnings.lines() for line in fold(text, width, hanging_indent=4)]
        _write(terminalreporter, (Line(line, "yellow") for line in warnings))
    if not findings.profiles:
        return
    from harness.report.summary import summary_lines, written_lines

    if verbosity <= -2:
        _write(terminalreporter, written_lines(findings, width))
    else:
        terminalreporter.write_sep("=", "phase diagram")
        _write(terminalreporter, summary_lines(findings, width, brief=verbosity < 0))
    if verbosity >= 0:
        for comparison in session_comparisons(config):
            terminalreporter.write_sep("=", "side by side")
            _write(terminalreporter, map(Line, comparison.lines(width)))
    _write(terminalreporter, final_lines(written_outputs(config), findings.problem(), width))


def final_lines(written: Sequence[str], problem: str, width: int) -> list[Line]:
    """Return the last lines: written files, each with its path at the end, and the reason why the run failed."""
    failed = fold(f"FAILED: {problem}", width) if problem else []
    return [*map(Line, written), *(Line(line, "red") for line in failed)]


def _write(terminalreporter: Any, lines: Iterable[Line]) -> None:
    for line in lines:
        terminalreporter.write_line(printable(line.text), **({line.colour: True} if line.colour else {}))
