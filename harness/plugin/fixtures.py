"""The fixtures of a pair: its model, profile and baseline, and the judge of its questions."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, TypeVar

import pytest

from harness.errors import PhaseError, printable
from harness.profile.pair import Pair
from harness.run.session import PhaseSession

if TYPE_CHECKING:
    from harness.baselines.store import Baseline
    from harness.measurement.stopwatch import ForwardPassTimer
    from harness.models.vlm import Vlm
    from harness.profile.profile import Profile
    from harness.run.judge import Judge

T = TypeVar("T")
SESSION = pytest.StashKey[PhaseSession]()


@pytest.fixture(scope="session")
def phase(request: pytest.FixtureRequest) -> Iterator[PhaseSession]:
    """The session's state: options, measured profiles, verdicts."""
    session = request.config.stash[SESSION]
    yield session
    session.loaded.release()


@pytest.fixture(scope="session")
def vlm(request: pytest.FixtureRequest, phase: PhaseSession, pair: Pair) -> Vlm:
    """The loaded model of the pair."""
    return _attempt(request, phase, pair, lambda: phase.loaded.vlm(pair.model))


@pytest.fixture(scope="session")
def profile(request: pytest.FixtureRequest, phase: PhaseSession, pair: Pair) -> Profile:
    """What was measured of the pair, once per session."""
    return _attempt(request, phase, pair, lambda: phase.measured.profile(pair))


@pytest.fixture(scope="session")
def baseline(request: pytest.FixtureRequest, phase: PhaseSession, pair: Pair, profile: Profile) -> Baseline:
    """The stored baseline of the pair; with an update option, written first where it is due.

    With --phase-against it is the other model's profile; tests that ask for one of another depth are skipped.
    """
    stored = _attempt(request, phase, pair, lambda: phase.baseline(pair))
    depths = (profile.depth, stored.profile.depth)
    if phase.options.against is not None and depths[0] != depths[1]:
        pytest.skip(f"{depths[0]} and {depths[1]} layers: compared by relative depth in the summary")
    return stored


@pytest.fixture(scope="session")
def judge(phase: PhaseSession, pair: Pair) -> Judge:
    """Answer the pair's questions and records the answers."""
    from harness.run.judge import Judge

    return Judge(phase, pair)


@pytest.fixture(scope="session")
def contestants(request: pytest.FixtureRequest, phase: PhaseSession, pair: Pair, vlm: Vlm) -> ForwardPassTimer:
    """Plain and hooked inference of one sample of the pair; of several processes the first alone has a clock."""
    if not phase.processes.first:
        pytest.skip("timed by the first process alone")
    from harness.measurement.stopwatch import ForwardPassTimer

    return _attempt(request, phase, pair, lambda: ForwardPassTimer(vlm, phase.measured.samples(pair, 1)))


@pytest.fixture(scope="session")
def strict_evidence(phase: PhaseSession) -> bool:
    """Whether an inconclusive verdict fails."""
    return phase.options.strict_evidence


def _attempt(request: pytest.FixtureRequest, phase: PhaseSession, pair: Pair, get: Callable[[], T]) -> T:
    """Load or measure: fixtures can be asked for, progress is seen, warnings and errors are noted."""
    phase.loaded.fixture_value = request.getfixturevalue
    assert request.fixturename is not None
    try:
        with _seen(request.config), phase.results.warnings.recording():
            return fail_without_traceback(get)
    except (Exception, pytest.fail.Exception):
        phase.errors.add(pair, request.fixturename, of_model=phase.loaded.failed(pair.model))
        raise


@contextmanager
def _seen(config: pytest.Config) -> Iterator[None]:
    """Let the progress of long work through to a terminal; elsewhere pytest captures as it always does."""
    with uncaptured(config):
        terminal = sys.stderr.isatty()
    with uncaptured(config) if terminal else nullcontext():
        yield


@contextmanager
def uncaptured(config: pytest.Config) -> Iterator[None]:
    """Let what is printed through to the terminal."""
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture is not None else nullcontext():
        yield


def is_worker(config: pytest.Config) -> bool:
    """Whether this is one of xdist's workers."""
    return hasattr(config, "workerinput")


def pair_of(item: pytest.Item) -> Pair | None:
    """Return the pair that a test is about, if it is about one."""
    pair: Pair | None = getattr(getattr(item, "callspec", None), "params", {}).get("pair")
    return pair


def write_line(config: pytest.Config, line: str) -> None:
    """Write a line to the terminal for all to see, where this process has one."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        # A fixture that says something is captured until its test fails.
        with uncaptured(config):
            reporter.ensure_newline()
            reporter.write_line(f"phase: {printable(line)}")


def fail_without_traceback(get: Callable[[], T]) -> T:
    """Return the value, or a failure that is the error's one sentence: a user has no use for our traceback."""
    try:
        return get()
    except PhaseError as error:
        problem = str(error)
    pytest.fail(problem, pytrace=False)
