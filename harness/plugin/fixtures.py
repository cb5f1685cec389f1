"""The fixtures of a pair: its model, profile, baseline and judge."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from harness.errors import PhaseError, printable
from harness.plugin.activation import SESSION as SESSION
from harness.profile.pair import Pair

if TYPE_CHECKING:
    from harness.baselines.store import Baseline
    from harness.measurement.stopwatch import ForwardPassTimer
    from harness.models.vlm import Vlm
    from harness.profile.profile import Profile
    from harness.run.judge import Judge
    from harness.run.session import PhaseSession

T = TypeVar("T")


@pytest.fixture(scope="session")
def phase(request: pytest.FixtureRequest) -> Iterator[PhaseSession]:
    """The session's state: options, measured profiles, verdicts."""
    if SESSION not in request.config.stash:
        pytest.fail("a test cannot request `phase` while it runs: name it among the arguments", pytrace=False)
    session = request.config.stash[SESSION]
    yield session
    session.loaded.release()


@pytest.fixture(scope="session")
def vlm(request: pytest.FixtureRequest, phase: PhaseSession, pair: Pair) -> Vlm:
    """The loaded model of the pair."""
    return _attempt(request, phase, pair, lambda: phase.loaded.vlm(pair.model))


@pytest.fixture(scope="session")
def profile(request: pytest.FixtureRequest, phase: PhaseSession, pair: Pair) -> Profile:
    """The measured profile of the pair, measured once per session."""
    return _attempt(request, phase, pair, lambda: phase.measured.profile(pair))


@pytest.fixture(scope="session")
def baseline(request: pytest.FixtureRequest, phase: PhaseSession, pair: Pair, profile: Profile) -> Baseline:
    """The stored baseline of the pair; an update option writes it first if necessary.

    With --phase-against it is the other model's profile; models of different depth skip the test.
    """
    stored = _attempt(request, phase, pair, lambda: phase.baseline(pair))
    depths = (profile.depth, stored.profile.depth)
    if phase.options.against is not None and depths[0] != depths[1]:
        pytest.skip(f"{depths[0]} and {depths[1]} layers: compared by relative depth in the summary")
    return stored


@pytest.fixture(scope="session")
def knockout(pair: Pair, profile: Profile) -> None:
    """Fails if the attention knockout of the pair could not be measured."""
    if reason := profile.declared.get("knockout_left_out"):
        pytest.fail(f"{pair}: the attention knockout cannot be measured: {printable(reason)}", pytrace=False)


@pytest.fixture(scope="session")
def judge(phase: PhaseSession, pair: Pair) -> Judge:
    """The judge of the pair, which records its verdicts."""
    from harness.run.judge import Judge

    return Judge(phase, pair)


@pytest.fixture(scope="session")
def contestants(request: pytest.FixtureRequest, phase: PhaseSession, pair: Pair, vlm: Vlm) -> ForwardPassTimer:
    """Plain and hooked inference of one sample of the pair; skipped in all processes except the first."""
    if not phase.processes.first:
        pytest.skip("only the first process measures times")
    from harness.measurement.stopwatch import ForwardPassTimer

    return _attempt(request, phase, pair, lambda: ForwardPassTimer(vlm, phase.measured.samples(pair, 1)))


@pytest.fixture(scope="session")
def strict_evidence(phase: PhaseSession) -> bool:
    """True if an inconclusive verdict fails a test."""
    return phase.options.strict_evidence


def _attempt(request: pytest.FixtureRequest, phase: PhaseSession, pair: Pair, get: Callable[[], T]) -> T:
    """Load or measure with progress output, and record warnings and errors of the pair."""
    phase.loaded.fixture_value = request.getfixturevalue
    assert request.fixturename is not None
    try:
        with _visible_progress(request.config), phase.results.warnings.recording():
            return fail_without_traceback(get)
    except (Exception, pytest.fail.Exception):
        phase.errors.add(pair, request.fixturename, of_model=phase.loaded.failed(pair.model))
        raise


@contextmanager
def _visible_progress(config: pytest.Config) -> Iterator[None]:
    """Disable the capture of output if stderr is a terminal, so that progress is visible."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    with uncaptured(config):
        terminal = sys.stderr.isatty()
    with uncaptured(config) if terminal else nullcontext():
        if terminal and reporter is not None:
            # The bar would overwrite the dots.
            start_line(reporter)
        yield


@contextmanager
def uncaptured(config: pytest.Config) -> Iterator[None]:
    """Disable the capture of output."""
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture is not None else nullcontext():
        yield


def is_worker(config: pytest.Config) -> bool:
    """Return True in a worker of pytest-xdist."""
    return hasattr(config, "workerinput")


def pair_of(item: pytest.Item) -> Pair | None:
    """Return the pair that parametrizes a test, or None; tests of the user may have other values of that name."""
    pair = getattr(getattr(item, "callspec", None), "params", {}).get("pair")
    return pair if isinstance(pair, Pair) else None


def write_line(config: pytest.Config, line: str) -> None:
    """Write a line to the terminal, if this process has a terminal reporter."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        # Without this, pytest would show the output of a fixture only if the test fails.
        with uncaptured(config):
            start_line(reporter)
            reporter.write_line(f"phase: {printable(line)}")


def start_line(reporter: Any) -> None:
    """End the line of the terminal if something is written in it, such as pytest's dots."""
    reporter.ensure_newline()
    if reporter._tw.width_of_current_line:
        reporter.write_line("")


def fail_without_traceback(get: Callable[[], T]) -> T:
    """Return the value, or fail with the message of a `PhaseError`; users do not need its traceback."""
    try:
        return get()
    except PhaseError as error:
        problem = str(error)
    pytest.fail(problem, pytrace=False)
