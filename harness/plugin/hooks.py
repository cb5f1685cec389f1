"""The part of the plugin that pytest loads in every project: options, markers, fixtures and parametrization by pair.

It imports neither torch nor numpy, and has no effect on a project without pairs.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module

import pytest

from harness.plugin import hookspec
from harness.plugin.activation import (
    PLUGIN,
    SESSION,
    cases_argument,
    is_active,
    is_requested,
    register_modules,
    use_previous_words,
    use_pytest_words,
)
from harness.plugin.fixtures import (
    baseline,
    contestants,
    is_worker,
    judge,
    knockout,
    phase,
    profile,
    strict_evidence,
    vlm,
    write_line,
)
from harness.run.options import add_options, read_options

# pytest collects fixtures from the namespace of the plugin.
__all__ = ["baseline", "contestants", "judge", "knockout", "phase", "profile", "strict_evidence", "vlm"]
# The name of pytest-benchmark's entry point.
_BENCHMARK = "benchmark"
# Registered here and not in a settings file, because tests in other projects use the markers too.
_MARKERS = (
    "replication: a claim of the paper, judged on this model and data",
    "regression: this model compared with its stored baseline",
    "causal: where the image enters, from attention knockout; needs --phase-knockout, or -m causal",
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


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Register the other modules of the plugin in a run that uses it."""
    if is_requested(config):
        register_modules(config)
        from harness.plugin.torchrun import prepare_processes

        prepare_processes(config)


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers, and read the options into the session's state in a run that uses the plugin."""
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)
    if is_active(config):
        _create_session(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Restore the interface that messages speak of."""
    use_previous_words(config)


def _create_session(config: pytest.Config) -> None:
    from harness.run.session import PhaseSession

    use_pytest_words(config)
    # Each line is printed once, because several pairs may report the same problem with the cache.
    session = PhaseSession(read_options(config), say=cache(lambda line: _say(config, line)))
    session.loaded.on_load = lambda vlm: config.hook.pytest_phase_model_loaded(vlm=vlm, config=config)
    config.stash[SESSION] = session
    if not cases_argument(config):
        # Tests that call `harness.measure` get errors in the words of Python; those of pairs follow.
        use_previous_words(config)


def _say(config: pytest.Config, line: str) -> None:
    if is_worker(config):
        config.stash[SESSION].results.messages.append(line)
    else:
        write_line(config, line)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that requests `pair` once per pair, unless the project provides a `pair` of its own."""
    requests_pair = "pair" in metafunc.fixturenames and not _is_provided(metafunc)
    if not requests_pair and not _requests_phase(metafunc):
        return
    config = metafunc.config
    if SESSION not in config.stash:
        _start_late(metafunc.definition.session)
    use_pytest_words(config)
    if requests_pair:
        state = config.stash[SESSION]
        state.parametrized, options = True, state.options
        marked = [
            pytest.param(pair, id=str(pair), marks=pytest.mark.bundled if options.is_bundled(pair) else pytest.mark.hub)
            for pair in options.pairs()
        ]
        metafunc.parametrize("pair", marked, scope="session")


def _is_provided(metafunc: pytest.Metafunc) -> bool:
    """Return True if a fixture, a marker or another plugin gives the test its `pair`."""
    # pytest has no public functions for the fixtures and the previous parametrizations of a test.
    if "pair" in metafunc._arg2fixturedefs or any("pair" in call.params for call in metafunc._calls):
        return True
    for marker in metafunc.definition.iter_markers("parametrize"):
        names = marker.args[0] if marker.args else marker.kwargs.get("argnames", ())
        if "pair" in (re.split(r"[\s,]+", names) if isinstance(names, str) else names):
            return True
    return False


def _requests_phase(metafunc: pytest.Metafunc) -> bool:
    """Return True if a test uses the plugin's fixture `phase`, on which the others depend."""
    definitions = metafunc._arg2fixturedefs.get("phase", ())
    return bool(definitions) and definitions[-1].func.__module__ == phase.__module__


def _start_late(session: pytest.Session) -> None:
    """Start the plugin for the first test of a pair in a project that names neither the plugin nor its options.

    Raises:
        pytest.Collector.CollectError: an option is invalid, or several processes measure.
    """
    from harness.measurement.ranks import processes

    config = session.config
    if is_worker(config) or processes().several:
        # The process that distributes the tests collects none, so it cannot start with the first test.
        raise pytest.Collector.CollectError(
            f"tests of pairs in several processes need the plugin from the start: add -p {PLUGIN} to the command"
        )
    try:
        _create_session(config)
    except pytest.UsageError as error:
        raise pytest.Collector.CollectError(str(error)) from None
    register_modules(config)
    from harness.plugin.signals import register_handler

    register_handler(session)
