"""What a run leaves behind for its readers, as pytest sees it: record, Markdown summary and report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.plugin.fixtures import SESSION, is_worker, write_line
from harness.run.findings import Findings
from harness.run.options import Options
from harness.storage.files import unwritable

if TYPE_CHECKING:
    from harness.report.against import ModelComparison

_COMPARED = pytest.StashKey["list[ModelComparison]"]()
_LEFT = pytest.StashKey["list[str]"]()


def unwritable_output(options: Options) -> str:
    """Why something that a run was asked to write cannot be put where it was asked for; empty where all can."""
    places = {"report": options.report, "json": options.json, "markdown": options.markdown}
    for name, place in places.items():
        if place is None:
            continue
        where = place if name == "report" else place.parent
        problem = unwritable(where)
        if not problem and name != "report":
            where, problem = place, _no_file(name, place)
        if problem:
            return f"--phase-{name}: {where} is not writable ({problem}); choose another with --phase-{name}"
    return ""


def _no_file(name: str, place: Path) -> str:
    """Return why no file can be put at a path, empty where one can; Markdown is appended, and a pipe takes it."""
    if place.is_dir():
        return "it is a directory"
    return "it is a pipe or a device" if name == "json" and place.exists() and not place.is_file() else ""


def compared(config: pytest.Config) -> list[ModelComparison]:
    """Return the models of this run beside the one of --phase-against, made once for all who show them."""
    if _COMPARED not in config.stash:
        session, found = config.stash[SESSION], []
        if session.options.against is not None:
            from harness.report.against import comparisons_of

            found = comparisons_of(session.found, session.measured.reference)
        config.stash[_COMPARED] = found
    return config.stash[_COMPARED]


def left_behind(config: pytest.Config) -> list[str]:
    """One line on each thing that the run has written."""
    return config.stash.get(_LEFT, [])


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write what was asked for; xdist's workers leave it to the controller, other processes to the first."""
    config = session.config
    state = config.stash[SESSION]
    found = state.found
    if is_worker(config) or not found.profiles or not state.processes.first:
        return
    known = {sample for profile in found.profiles.values() for sample in profile.sample_ids}
    for sample in (sample for sample in state.options.draw if sample not in known):
        write_line(config, f"--phase-draw {sample}: no pair of this run has a sample of that id; phase.json lists them")
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
    # The record first: where a later one cannot be made, the numbers are there.
    for name, write in (("json", _write_json), ("markdown", _write_markdown), ("report", _write_report)):
        place: Path | None = getattr(state.options, name)
        if place is None:
            continue
        try:
            config.stash.setdefault(_LEFT, []).append(write(found, compared(config), place))
        except Exception as error:  # Whatever writing trips over, the terminal still shows the findings.
            reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
            write_line(config, f"--phase-{name} {place} could not be written: {reason}")
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


def _write_json(found: Findings, compared: list[ModelComparison], place: Path) -> str:
    from harness.report.record import record_of
    from harness.storage.files import write_atomically
    from harness.storage.json_text import dump

    write_atomically(place, dump(record_of(found, compared)))
    return f"record {place}"


def _write_markdown(found: Findings, compared: list[ModelComparison], place: Path) -> str:
    from harness.report.markdown import markdown_summary

    with place.open("a", encoding="utf-8") as file:
        file.write(markdown_summary(found, compared))
    return f"Markdown summary {place}"


def _write_report(found: Findings, compared: list[ModelComparison], place: Path) -> str:
    from harness.report.write import write_report

    return f"report {write_report(found, compared, place)}"
