"""The header, the progress and the summary of a run in pytest's terminal."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from importlib.metadata import version
from typing import Any

import pytest

from harness.data.sample import CONTROLS
from harness.measurement.progress import PeriodicLines
from harness.plugin.brief_failures import add_brief
from harness.plugin.fixtures import SESSION, is_worker, pair_of, start_line, write_line
from harness.plugin.last_lines import LastLines
from harness.plugin.outputs import session_comparisons, write_lines, written_outputs
from harness.plugin.xdist import model_of
from harness.report.layout import Line, fold, terminal_width, unbroken
from harness.report.verdict_words import OPEN
from harness.run.option_row import AS_DECLARED
from harness.run.options import Options

_HEADED = pytest.StashKey[bool]()
_LAST_LINES = pytest.StashKey[LastLines]()


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Register the last lines, and print the progress of a run without a terminal."""
    config.stash[_LAST_LINES] = LastLines()
    config.pluginmanager.register(config.stash[_LAST_LINES])
    if not is_worker(config):
        config.stash[SESSION].measured.progress_line = PeriodicLines(lambda line: write_line(config, line))


def pytest_report_collectionfinish(config: pytest.Config, items: Sequence[pytest.Item]) -> list[str]:
    """Return the header if pairs are measured; then pytest prints its dots without the names of the files."""
    on_pairs = [item for item in items if pair_of(item) is not None]
    verbosity = config.get_verbosity()
    if not on_pairs or verbosity < 0:
        return []
    if verbosity == 0 and len(on_pairs) == len(items):
        _reporter(config).showfspath = False
        config.stash[_LAST_LINES].quiet_times = "timing" not in config.option.markexpr
    return header_lines(config.stash[SESSION].options)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Shorten the report of a failed check."""
    report = yield
    add_brief(report, call)
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: Sequence[str]) -> None:
    """Print the header once, when the first worker has collected tests on pairs; the controller collects nothing."""
    config, reporter = node.config, _reporter(node.config)
    options, verbosity = config.stash[SESSION].options, node.config.get_verbosity()
    headed = config.stash.get(_HEADED, False) or verbosity < 0
    if not headed and any(model_of(nodeid, options.pairs()) for nodeid in ids):
        config.stash[_HEADED] = True
        config.stash[_LAST_LINES].quiet_times = verbosity == 0
        start_line(reporter)
        for line in header_lines(options):
            reporter.write_line(line)


def _reporter(config: pytest.Config) -> Any:
    return config.pluginmanager.get_plugin("terminalreporter")


def header_lines(options: Options) -> list[str]:
    """Return lines with versions, the options that are not the defaults, baselines, and models whose code is run."""
    values = {
        "device": (options.device, ""),
        "dtype": (options.dtype, AS_DECLARED),
        "samples": (options.samples, None),
        "seed": (options.seed, 0),
        "batch size": (options.batch_size, 8),
        "controls": (" ".join(options.controls) or "none", " ".join(CONTROLS)),
    }
    numbers = [unbroken(f"{name} {value}") for name, (value, default) in values.items() if value != default]
    stored = f"baselines {unbroken(str(options.baselines))}"
    if options.against is not None:
        stored = f"against {options.against.name}, measured in this run"
    update = ", update" if options.update else ", update new only" if options.update_new else ""
    versions = f"harness {version('vlm-phase-harness')}, torch {version('torch')}, transformers"
    lines = [
        f"phase: {versions} {version('transformers')}, {', '.join(numbers)}",
        f"phase: {stored}{update}, cache {unbroken(str(options.cache))}",
    ]
    trusted = ", ".join(map(unbroken, options.trusted_models()))
    lines += [f"phase: RUNNING CODE of the checkpoint {trusted} (--phase-trust-code)"] if trusted else []
    return [line for text in lines for line in fold(text, terminal_width(), hanging_indent=len("phase: "))]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the results of each pair, the matched, written and unused baselines, and the written files.

    With -q explanations are omitted, with -qq all but written files.
    """
    findings = config.stash[SESSION].results
    for line in findings.messages:
        write_line(config, line)
    verbosity, width = config.get_verbosity(), terminal_width()
    if verbosity >= 0:
        warnings = [line for text in findings.warnings.lines() for line in fold(text, width, hanging_indent=4)]
        write_lines(terminalreporter, (Line(line, OPEN) for line in warnings))
    if not (findings.profiles or findings.unavailable):
        return
    from harness.report.outcomes import pair_outcomes
    from harness.report.summary import summary_lines, written_lines

    if verbosity <= -2:
        write_lines(terminalreporter, written_lines(findings, width))
    else:
        terminalreporter.write_sep("=", "phase diagram")
        write_lines(terminalreporter, summary_lines(findings, pair_outcomes(findings), width, verbosity=verbosity))
    if verbosity >= 0:
        for comparison in session_comparisons(config):
            terminalreporter.write_sep("=", "side by side")
            write_lines(terminalreporter, map(Line, comparison.lines(width)))
    write_lines(terminalreporter, map(Line, written_outputs(config)))
