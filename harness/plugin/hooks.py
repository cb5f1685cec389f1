"""The main hooks of the plugin: options, parametrization by pair, selection and refusal of tests."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import nullcontext
from functools import cache
from importlib import import_module

import pytest

from harness.data.datasets import find_dataset
from harness.errors import PhaseError
from harness.plugin import hookspec
from harness.plugin.collection_refusals import refuse_impossible
from harness.plugin.fixtures import (
    SESSION,
    baseline,
    contestants,
    is_worker,
    judge,
    pair_of,
    phase,
    profile,
    strict_evidence,
    vlm,
    write_line,
)
from harness.run.options import add_options, read_options
from harness.run.session import PhaseSession

# pytest collects fixtures from the namespace of the plugin.
__all__ = ["baseline", "contestants", "judge", "phase", "profile", "strict_evidence", "vlm"]
# The name of pytest-benchmark's entry point.
_BENCHMARK = "benchmark"
pytest_plugins = (
    "harness.plugin.torchrun",
    "harness.plugin.signals",
    "harness.plugin.xdist",
    "harness.plugin.claim_tests",
    "harness.plugin.outputs",
    "harness.plugin.terminal",
    "harness.plugin.junit",
)
_NO_REGRESSION = ("replication", "timing")
# Registered here and not in a settings file, because tests in other projects use the markers too.
_MARKERS = (
    "replication: a claim of the paper, judged on this model and data",
    "regression: this model compared with its stored baseline",
    "timing: hooked inference compared with plain inference",
    "bundled: needs only the bundled models and data",
    "hub: needs weights or data that are not part of the project",
)


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the `--phase-` options and their ini settings; register pytest-benchmark if plugin autoload is off."""
    add_options(parser)
    benchmark = import_module("pytest_benchmark.plugin")
    if not pluginmanager.is_registered(benchmark) and not pluginmanager.is_blocked(_BENCHMARK):
        pluginmanager.register(benchmark, _BENCHMARK)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the hook by which a conftest may change a loaded model."""
    pluginmanager.add_hookspecs(hookspec)


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers and read the options into the session's state."""
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)
    # Each line is printed once, because several pairs may report the same problem with the cache.
    session = PhaseSession(read_options(config), say=cache(lambda line: _say(config, line)))
    session.loaded.on_load = lambda vlm: config.hook.pytest_phase_model_loaded(vlm=vlm, config=config)
    config.stash[SESSION] = session


def _say(config: pytest.Config, line: str) -> None:
    if is_worker(config):
        config.stash[SESSION].results.messages.append(line)
    else:
        write_line(config, line)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that requests `pair` once per pair."""
    if "pair" in metafunc.fixturenames:
        state = metafunc.config.stash[SESSION]
        state.parametrized, options = True, state.options
        marked = [
            pytest.param(pair, id=str(pair), marks=pytest.mark.bundled if options.is_bundled(pair) else pytest.mark.hub)
            for pair in options.pairs()
        ]
        metafunc.parametrize("pair", marked, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect replication and timing tests on datasets that are for regression only."""
    deselected = [
        item
        for item in items
        if (pair := pair_of(item)) is not None
        and find_dataset(pair.dataset).regression_only
        and any(map(item.get_closest_marker, _NO_REGRESSION))
    ]
    if deselected:
        items[:] = [item for item in items if item not in deselected]
        config.hook.pytest_deselected(items=deselected)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse pairs that cannot be measured: missing data, an unavailable device, an unwritable directory.

    Several processes check this together. A process without selected tests takes part, because the others wait for it.
    """
    needed = any("pair" in getattr(item, "fixturenames", ()) for item in session.items)
    state = session.config.stash[SESSION]
    several = state.processes.several and state.parametrized
    if session.config.option.collectonly or not (needed or several):
        return
    # Imported late, because pytest warns about a plugin module that is imported before it is registered.
    from harness.plugin.claim_tests import read_claim_rules
    from harness.plugin.torchrun import refuse_together, start_together

    def refuse() -> None:
        if needed:
            state.results.collected = tuple(dict.fromkeys(filter(None, map(pair_of, session.items))))
            refuse_impossible(session)

    if several:
        start_together(session, refuse)
    else:
        refuse()
    try:
        read_claim_rules(session.config)
    except PhaseError as error:
        refuse_together(str(error))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests of an unavailable pair, and of a pair whose error an earlier test reported."""
    if not (pair := pair_of(item)):
        return
    state = item.config.stash[SESSION]
    state.errors.running = item.nodeid
    if reason := state.measured.missing(pair):
        pytest.skip(f"{pair}: {reason}")
    if reason := state.errors.earlier(pair, getattr(item, "fixturenames", ())):
        pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Count warnings of timed models like those of measured models."""
    timed = item.get_closest_marker("timing") is not None and pair_of(item) is not None
    with item.config.stash[SESSION].results.warnings.recording() if timed else nullcontext():
        return (yield)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run with too many inconclusive verdicts; with xdist, only the controller does so."""
    state = session.config.stash[SESSION]
    if (
        not is_worker(session.config)
        and state.results.inconclusive_reason()
        and session.exitstatus == pytest.ExitCode.OK
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
