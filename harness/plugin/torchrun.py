"""Support for torchrun: the first process prints and writes, and all processes have the same exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from typing import NoReturn, TextIO

import pytest

from harness.errors import PhaseError, last_line
from harness.measurement.rank_settings import Setting, setting
from harness.measurement.ranks import ProcessError, processes
from harness.plugin.fixtures import SESSION, fail_without_traceback, uncaptured, write_line
from harness.run.options import OPTIONS, Options

_FAILURES = pytest.StashKey[list[tuple[str, str]]]()
_SILENCE = pytest.StashKey[TextIO]()
_LIBRARIES = ("vlm-phase-harness", "torch", "transformers", "numpy")


def prepare_processes(config: pytest.Config) -> None:
    """Write JUnit XML in the first process only, and refuse pytest-xdist; called before pytest's plugins start."""
    group = processes()
    if not group.several:
        return
    if getattr(config.option, "numprocesses", None):
        raise pytest.UsageError(
            "torchrun distributes the samples of each model, and pytest-xdist distributes the models: use one of them, "
            "torchrun or -n"
        )
    if not group.first:
        config.option.xmlpath = None


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Set the timeout of waits for other processes, and discard the output of all except the first."""
    config.stash[_FAILURES] = []
    group = processes()
    group.patience = timedelta(seconds=config.stash[SESSION].options.process_timeout)
    group.say = partial(_report, config)
    if group.first:
        return
    config.stash[_SILENCE] = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - a device that stays open
    manager = config.pluginmanager
    manager.unregister(name="terminalreporter")
    manager.register(pytest.TerminalReporter(config, config.stash[_SILENCE]), "terminalreporter")


def _report(config: pytest.Config, line: str) -> None:
    """Print a line in any process; errors are ignored because the terminal may be closed."""
    with suppress(OSError):
        if processes().first:
            write_line(config, line)
            return
        with uncaptured(config):
            print(f"phase: {line}", file=sys.stderr, flush=True)


def start_together(session: pytest.Session, refuse: Callable[[], None]) -> None:
    """Check that all processes have the same settings and that none refuses its pairs.

    Args:
        session: the session with its collected tests.
        refuse: raises `pytest.UsageError` if this process cannot measure its pairs.

    Raises:
        pytest.UsageError, pytest.exit.Exception: settings differ or a process refuses; the same in all processes.
    """
    config = session.config

    def settings() -> dict[str, Setting]:
        try:
            refuse()
        except pytest.UsageError as error:
            raise ProcessError(str(error)) from None
        from harness.models.vlm import choose_device

        options = config.stash[SESSION].options
        settings_here = option_settings(options, choose_device(options.device).type)
        return settings_here | selection_settings(config, session.items)

    try:
        processes().require_same_settings("the start", "started", settings)
    except PhaseError as error:
        refuse_together(str(error))


def option_settings(options: Options, device: str) -> dict[str, Setting]:
    """Return the options that must be the same in all processes, and the versions of libraries, by name.

    Args:
        options: the options of the run.
        device: the type of device of this process.
    """
    # Data and weights are compared later, when they are read.
    rows = {name: option.argument for name, option in OPTIONS.items() if not option.per_process}
    values = {argument: getattr(options, name) for name, argument in rows.items()}
    named = options.named_models()
    values["--phase-trust-code"] = [entry for entry in named if entry.trusted]
    values["--phase-allow-unused-weights"] = [entry for entry in named if entry.unused_weights]
    values["device"] = device
    return {name: setting(value) for name, value in values.items()} | {
        name: Setting(version(name)) for name in _LIBRARIES
    }


def selection_settings(config: pytest.Config, items: Sequence[pytest.Item]) -> dict[str, Setting]:
    """Return the tests that synchronise processes, the options that select them, and --maxfail."""
    # Other tests of the user may differ, for example if they are parametrized by the elements of a set.
    ids = [item.nodeid for item in items if _synchronises(item)]
    return {
        "--maxfail": setting(config.getoption("maxfail", 0)),
        "-k": setting(config.getoption("keyword", "")),
        "-m": setting(config.getoption("markexpr", "")),
        "paths": Setting(" ".join(map(str, config.args))),
        "tests": Setting("\n".join(ids), f"{len(ids)}"),
    }


def _synchronises(item: pytest.Item) -> bool:
    fixtures = {"pair", "phase"}.intersection(getattr(item, "fixturenames", ()))
    return bool(fixtures) or item.get_closest_marker("timing") is not None


def refuse_together(problem: str) -> NoReturn:
    """End all processes with the exit status of a usage error; the first prints it."""
    if processes().first:
        raise pytest.UsageError(problem)
    pytest.exit(problem, pytest.ExitCode.USAGE_ERROR)


def pytest_report_header() -> list[str]:
    """Return a line with the number of processes if there are several."""
    group = processes()
    return [f"phase: {group.count} processes share the samples of each pair"] if group.several else []


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Wait while the first process times a model, and stop if it ended its session, as with -x."""
    group = processes()
    if not group.several or item.get_closest_marker("timing") is None:
        return
    session = item.session
    ended = fail_without_traceback(lambda: group.run_on_first(f"the end of {item.nodeid}", lambda: session.shouldfail))
    session.shouldfail = session.shouldfail or ended


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember failures, which the first process reports."""
    report = yield
    if report.failed and processes().several:
        item.config.stash[_FAILURES].append((report.nodeid, last_line(report.longreprtext, "failed")))
    return report


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Give all processes the same exit status: the first that is not 0, in order of the processes."""
    group = processes()
    if not group.connected:
        return
    own_result = int(session.exitstatus), session.config.stash[_FAILURES]
    try:
        results = group.gather("the end of the tests", lambda: [own_result])
    except PhaseError as error:
        write_line(session.config, str(error))
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
        return
    statuses = [status for status, _ in results]
    session.exitstatus = statuses[0] or next(filter(None, statuses), 0)
    known = {test for test, _ in results[0][1]}
    for rank, (_, failures) in enumerate(results):
        for test, sentence in failures:
            if test not in known:
                write_line(session.config, f"{test} failed in process {rank} only: {sentence}")


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Wait until the first process has finished its output, because launchers end all processes if one fails."""
    group = processes()
    if config.stash.get(_SILENCE, None) is not None:
        config.stash[_SILENCE].close()
    if group.connected:
        sys.stdout.flush()
        group.leave()
