"""The harness as pytest sees it: options, parametrization by pair, what is turned away, header and summary."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest

from harness.errors import PhaseError, shown
from harness.files import unwritable
from harness.known_differences import known_differences
from harness.option_values import AS_DECLARED, FIXTURE
from harness.options import Pair, add_options, read_options
from harness.pytest_fixtures import (
    SESSION,
    baseline,
    contestants,
    is_worker,
    judge,
    phase,
    profile,
    strict_evidence,
    vlm,
    write_line,
)
from harness.reading_store import unusable
from harness.session import PhaseSession

if TYPE_CHECKING:
    from harness.report.against import ModelComparison

# A plugin's fixtures are those of its namespace.
__all__ = ["baseline", "contestants", "judge", "phase", "profile", "strict_evidence", "vlm"]
pytest_plugins = ("harness.pytest_processes", "harness.xdist_workers")
COMPARED = pytest.StashKey["list[ModelComparison]"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the `--phase-` options and their ini twins."""
    add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Adds the hook by which a conftest may change a loaded model."""
    from harness import pytest_hooks

    pluginmanager.add_hookspecs(pytest_hooks)


def pytest_configure(config: pytest.Config) -> None:
    """Reads the options into the session's state."""
    session = PhaseSession(read_options(config), say=lambda line: _say(config, line))
    session.loaded.on_load = lambda vlm: config.hook.pytest_phase_model_loaded(vlm=vlm, config=config)
    config.stash[SESSION] = session


def _say(config: pytest.Config, line: str) -> None:
    if is_worker(config):
        config.stash[SESSION].said.append(line)
    else:
        write_line(config, line)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """What is measured how, and against what; a line for each checkpoint whose own code is run."""
    options = config.stash[SESSION].options
    update = "on" if options.update else "new only" if options.update_new else "off"
    files = len(list(options.baselines.glob("*/*.json")))
    samples = options.samples or AS_DECLARED
    controls = " ".join(options.controls) or "none"
    stored = f"baselines {options.baselines} ({files} files), update {update}"
    if options.against is not None:
        stored = f"against {options.against.name}, measured in this run"
    return [
        f"phase: harness {version('vlm-phase-harness')}, torch {version('torch')}, transformers "
        f"{version('transformers')}, device {options.device}, dtype {options.dtype}, samples {samples}, "
        f"seed {options.seed}, batch size {options.batch_size}, controls {controls}",
        f"phase: {stored}, cache {options.cache}",
        *(f"phase: RUNNING CODE of the checkpoint {name} (--phase-trust-code)" for name in options.trusted()),
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs every case that asks for a `pair` once per pair."""
    if "pair" in metafunc.fixturenames:
        options = metafunc.config.stash[SESSION].options
        marked = [
            pytest.param(pair, id=str(pair), marks=pytest.mark.embedded if options.embedded(pair) else pytest.mark.hub)
            for pair in options.pairs()
        ]
        metafunc.parametrize("pair", marked, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Expects the known non-replications to fail, strictly: one that replicates after all is noticed."""
    try:
        known = known_differences(config.stash[SESSION].options.baselines)
    except PhaseError as error:
        raise pytest.UsageError(str(error)) from None
    for item in items:
        marker, call = item.get_closest_marker("replication"), getattr(item, "callspec", None)
        if marker is None or call is None:
            continue
        reason = known.get(str(call.params["pair"]), {}).get(marker.kwargs["claim"])
        if reason is not None:
            item.add_marker(pytest.mark.xfail(reason=f"known: {reason}", strict=True, raises=AssertionError))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Turns away what cannot work before anything is measured: a cache that cannot be written, a device not there."""
    needed = any("pair" in getattr(item, "fixturenames", ()) for item in session.items)
    if not needed or session.config.option.collectonly:
        return
    state = session.config.stash[SESSION]
    options = state.options
    state.collected = tuple(dict.fromkeys(filter(None, map(_pair_of, session.items))))
    _refuse_fixtures(session, options.fixtures())
    from harness.models.vlm import choose_device

    try:
        choose_device(options.device)
    except PhaseError as error:
        raise pytest.UsageError(str(error)) from None
    others = dict.fromkeys(filter(None, map(state.other_of, state.collected)))
    for pair in (*state.collected, *others):
        missing = options.unavailable(pair)
        if missing and missing[1]:
            raise pytest.UsageError(f"{pair} was asked for and cannot be measured here: {missing[0]}")
    if problem := unusable(options.cache):
        raise pytest.UsageError(
            f"--phase-cache: {options.cache} is not writable ({problem}); choose another with --phase-cache"
        )
    if options.json and (problem := unwritable(options.json.parent)):
        raise pytest.UsageError(
            f"--phase-json: {options.json.parent} is not writable ({problem}); choose another with --phase-json"
        )


def _refuse_fixtures(session: pytest.Session, names: list[str]) -> None:
    """Turns away `fixture:NAME` where the tests see no such fixture, or one that lives for one test only."""
    for name in names:
        item = next(item for item in session.items if _pair_of(item))
        # pytest has no public way to ask for a fixture without setting it up, and setting this one up loads a model.
        found = session._fixturemanager.getfixturedefs(name, item)
        if not found:
            raise pytest.UsageError(
                f"{FIXTURE}{name}: {item.location[0]} sees no fixture {name!r}; define it in a conftest.py above the "
                "tests, or in a plugin named with -p, with scope='session'"
            )
        if found[-1].scope != "session":
            raise pytest.UsageError(
                f"{FIXTURE}{name}: the fixture has scope {found[-1].scope!r} and would load its model anew; declare it "
                "with @pytest.fixture(scope='session')"
            )


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips the cases of a pair that nobody asked for by name and that this machine has not got."""
    if (pair := _pair_of(item)) and (reason := item.config.stash[SESSION].missing(pair)):
        pytest.skip(f"{pair}: {reason}")


def _pair_of(item: pytest.Item) -> Pair | None:
    pair: Pair | None = getattr(getattr(item, "callspec", None), "params", {}).get("pair")
    return pair


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """One row per pair, then which baselines were matched, written or left unused."""
    session = config.stash[SESSION]
    for line in session.said:
        write_line(config, line)
    if session.profiles:
        from harness.report.summary import summary_lines

        terminalreporter.section("phase diagram")
        for line in summary_lines(session):
            terminalreporter.write_line(shown(line))
        for comparison in _compared(config):
            terminalreporter.section("side by side")
            for line in comparison.lines():
                terminalreporter.write_line(shown(line))
        if problem := session.muteness():
            terminalreporter.write_line(f"FAILED: {problem}", red=True)


def _compared(config: pytest.Config) -> list[ModelComparison]:
    """The models of this run beside the one of --phase-against, made once for the summary and the JSON."""
    if COMPARED not in config.stash:
        session, found = config.stash[SESSION], []
        if session.options.against is not None:
            from harness.report.against import comparisons_of

            found = comparisons_of(session)
        config.stash[COMPARED] = found
    return config.stash[COMPARED]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails a suite that decides too little, and writes the JSON record; xdist's workers leave it to the controller."""
    state = session.config.stash[SESSION]
    if is_worker(session.config):
        return
    if state.muteness() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if state.options.json is None or not state.profiles or not state.processes.first:
        return
    from harness.files import write_atomically
    from harness.json_text import dump
    from harness.report.record import record_of

    try:
        compared = [comparison.record() for comparison in _compared(session.config)]
        write_atomically(state.options.json, dump(record_of(state) | ({"against": compared} if compared else {})))
    except OSError as error:
        write_line(session.config, f"--phase-json {state.options.json} could not be written: {error.strerror}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
