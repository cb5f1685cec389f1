"""The harness in pytest's terminal: the header of a run, and the summary that ends it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any

import pytest

from harness.errors import shown
from harness.plugin.fixtures import SESSION, write_line
from harness.plugin.outputs import compared, left_behind
from harness.report.layout import Line, folded, kept, terminal_width
from harness.run.option_row import AS_DECLARED


def pytest_report_header(config: pytest.Config) -> list[str]:
    """What is measured how, and against what; a line for each checkpoint whose own code is run."""
    options = config.stash[SESSION].options
    update = "on" if options.update else "new only" if options.update_new else "off"
    files = len(list(options.baselines.glob("*/*.json")))
    samples = options.samples or AS_DECLARED
    controls = " ".join(options.controls) or "none"
    stored = f"baselines {kept(str(options.baselines))} ({files} files), update {update}"
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
        f"{version('transformers')}, {', '.join(map(kept, numbers))}",
        f"phase: {stored}, cache {kept(str(options.cache))}",
        *(f"phase: RUNNING CODE of the checkpoint {kept(name)} (--phase-trust-code)" for name in options.trusted()),
    ]
    return [line for text in lines for line in folded(text, terminal_width(), deeper=len("phase: "))]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """What was found of each pair, then which baselines were matched, written or left unused.

    With -q only the verdicts and what was written, with -qq only what was written and why the run fails.
    """
    found = config.stash[SESSION].found
    for line in found.messages:
        write_line(config, line)
    verbosity, width = config.get_verbosity(), terminal_width()
    if verbosity >= 0:
        seen = [line for text in found.warnings.lines() for line in folded(text, width, deeper=4)]
        _write(terminalreporter, (Line(line, "yellow") for line in seen))
    if not found.profiles:
        return
    from harness.report.summary import summary_lines, written_lines

    if verbosity <= -2:
        _write(terminalreporter, written_lines(found, width))
    else:
        terminalreporter.write_sep("=", "phase diagram")
        _write(terminalreporter, summary_lines(found, width, brief=verbosity < 0))
    if verbosity >= 0:
        for comparison in compared(config):
            terminalreporter.write_sep("=", "side by side")
            _write(terminalreporter, map(Line, comparison.lines(width)))
    _write(terminalreporter, ending_lines(left_behind(config), found.problem(), width))


def ending_lines(written: Sequence[str], problem: str, width: int) -> list[Line]:
    """The last lines: what was written, each with its path at its end, and why the run as a whole failed."""
    failed = folded(f"FAILED: {problem}", width) if problem else []
    return [*map(Line, written), *(Line(line, "red") for line in failed)]


def _write(terminalreporter: Any, lines: Iterable[Line]) -> None:
    for line in lines:
        terminalreporter.write_line(shown(line.text), **({line.colour: True} if line.colour else {}))
