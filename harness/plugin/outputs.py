"""Hooks that write the output files of a run: record, Markdown summary and report."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.errors import printable
from harness.plugin.fixtures import SESSION, is_worker
from harness.report.layout import Line
from harness.run.options import Options
from harness.run.session_results import SessionResults
from harness.storage.files import unwritable_reason

if TYPE_CHECKING:
    from harness.report.against import ModelComparison

_COMPARED = pytest.StashKey["list[ModelComparison]"]()
_WRITTEN = pytest.StashKey["list[str]"]()
_PROBLEMS = pytest.StashKey["list[str]"]()


def unwritable_output(options: Options) -> str:
    """Return why a requested output cannot be written; empty if all are writable."""
    paths = {"report": options.report, "json": options.json, "markdown": options.markdown}
    for name, path in paths.items():
        if path is None:
            continue
        checked = path if name == "report" else path.parent
        problem = unwritable_reason(checked)
        if not problem and name != "report":
            checked, problem = path, _not_a_file_reason(name, path)
        if problem:
            return f"--phase-{name}: {checked} is not writable ({problem}); choose another with --phase-{name}"
    return ""


def _not_a_file_reason(name: str, path: Path) -> str:
    """Return why a path cannot be a file, or an empty string; Markdown may be appended to a pipe."""
    if path.is_dir():
        return "it is a directory"
    return "it is a pipe or a device" if name == "json" and path.exists() and not path.is_file() else ""


def session_comparisons(config: pytest.Config) -> list[ModelComparison]:
    """Return the comparisons of a run with --phase-against, computed once per session."""
    if _COMPARED not in config.stash:
        session, findings = config.stash[SESSION], []
        if session.options.against is not None:
            from harness.report.against import model_comparisons

            findings = model_comparisons(session.results, session.measured.reference)
        config.stash[_COMPARED] = findings
    return config.stash[_COMPARED]


def written_outputs(config: pytest.Config) -> list[str]:
    """Return one line per output file of the run."""
    return config.stash.get(_WRITTEN, [])


def output_problems(config: pytest.Config) -> list[str]:
    """Return why outputs are missing that the run was to write."""
    return config.stash.get(_PROBLEMS, [])


def write_lines(terminalreporter: Any, lines: Iterable[Line]) -> None:
    """Write lines in their colours; control characters are escaped."""
    for line in lines:
        terminalreporter.write_line(printable(line.text), **({line.colour: True} if line.colour else {}))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the requested outputs; only the controller of xdist or the first of several processes does so."""
    config = session.config
    state = config.stash[SESSION]
    findings = state.results
    if is_worker(config) or not findings.profiles or not state.processes.first:
        return
    known = {sample for profile in findings.profiles.values() for sample in profile.sample_ids}
    for sample in (sample for sample in state.options.draw if sample not in known):
        config.stash.setdefault(_PROBLEMS, []).append(
            f"--phase-draw {sample}: no pair of this run has a sample with this id; phase.json lists all ids"
        )
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
    # The record is written first, so that the numbers exist even if a later output fails.
    for name, write in (("json", _write_json), ("markdown", _write_markdown), ("report", _write_report)):
        path: Path | None = getattr(state.options, name)
        if path is None:
            continue
        try:
            config.stash.setdefault(_WRITTEN, []).append(write(findings, session_comparisons(config), path))
        except Exception as error:  # The terminal summary must appear even if an output cannot be written.
            reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
            config.stash.setdefault(_PROBLEMS, []).append(f"--phase-{name} {path} could not be written: {reason}")
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


def _write_json(findings: SessionResults, comparisons: list[ModelComparison], path: Path) -> str:
    from harness.report.record import run_record
    from harness.storage.files import write_atomically
    from harness.storage.json_text import dump

    write_atomically(path, dump(run_record(findings, comparisons)))
    return f"record {path}"


def _write_markdown(findings: SessionResults, comparisons: list[ModelComparison], path: Path) -> str:
    from harness.report.markdown import markdown_summary

    with path.open("a", encoding="utf-8") as file:
        file.write(markdown_summary(findings, comparisons))
    return f"Markdown summary {path}"


def _write_report(findings: SessionResults, comparisons: list[ModelComparison], path: Path) -> str:
    from harness.report.write import write_report

    return f"report {write_report(findings, comparisons, path)}"
