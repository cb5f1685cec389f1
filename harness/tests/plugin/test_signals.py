"""SIGTERM and SIGHUP end a run like Ctrl-C: exit status 2, JUnit XML, and a note on the cached readings."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.measurement.ranks import ProcessError, Processes
from harness.plugin.signals import SignalHandler
from harness.tests.support.case_runs import ROOT, Cases

NUMBERS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Any:
    alone = Processes()
    monkeypatch.setattr("harness.plugin.signals.processes", lambda: alone)
    return SimpleNamespace(shouldstop=False)


@pytest.fixture
def ending(session: Any) -> Iterator[SignalHandler]:
    """The handler, installed while no other handler is."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in NUMBERS}
    made = SignalHandler(session)
    made.install()
    yield made
    made.pytest_unconfigure()
    assert {signal.getsignal(number) for number in NUMBERS} == {signal.SIG_DFL}
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_interrupts_once(ending: SignalHandler, session: Any, number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt, match=f"ended by {number.name}"):
        signal.raise_signal(number)
    assert session.shouldstop == f"ended by {number.name}"
    # timeout(1) and a closing terminal send a second signal.
    for again in NUMBERS:
        signal.raise_signal(again)


def test_a_second_signal_a_second_later_ends_the_process() -> None:
    program = """if True:
        import signal, time, types
        from harness.plugin import signals
        signals._REPEAT = 0.0
        ending = signals.SignalHandler(types.SimpleNamespace(shouldstop=False))
        ending.install()
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        time.sleep(0.01)
        signal.raise_signal(signal.SIGTERM)
        print("still here")
    """
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE")}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "interrupted\n"), done.stderr


def test_a_signal_in_a_destructor_ends_before_the_next_batch_or_test(
    ending: SignalHandler, session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dying:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    swallowed: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", swallowed.append)
    alone = sys.modules["harness.plugin.signals"].processes()
    alone.begin_batch("batch 1 of 2")
    Dying()
    assert len(swallowed) == 1
    assert session.shouldstop == "ended by SIGTERM"
    with pytest.raises(ProcessError, match="ended by SIGTERM"):
        alone.begin_batch("batch 2 of 2")
    ending.pytest_unconfigure()
    alone.begin_batch("batch of another session")


def test_signals_do_not_interrupt_the_final_output(ending: SignalHandler, session: Any) -> None:
    ending.pytest_sessionfinish()
    signal.raise_signal(signal.SIGTERM)
    assert session.shouldstop is False


def test_a_signal_does_not_interrupt_one_of_several_processes(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    group = Processes(1, 2)
    monkeypatch.setattr("harness.plugin.signals.processes", lambda: group)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ending = SignalHandler(session)
    ending.install()
    signal.raise_signal(signal.SIGTERM)
    ending.pytest_unconfigure()
    signal.signal(signal.SIGTERM, before)
    assert str(session.shouldstop).startswith("ended by its launcher (SIGTERM), as when another process fails")


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.parametrize("count", [1, 2])
def test_a_forked_child_ends_at_a_signal(
    ending: SignalHandler, session: Any, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr("harness.plugin.signals.processes", lambda: Processes(0, count))
    fork = multiprocessing.get_context("fork")
    ready = fork.Event()
    child = fork.Process(target=lambda: (ready.set(), threading.Event().wait(60.0)))
    child.start()
    # Python may lose a signal that arrives during the fork.
    assert ready.wait(30.0)
    child.terminate()
    child.join(30.0)
    child.kill()
    assert child.exitcode == -signal.SIGTERM
    assert session.shouldstop is False


def test_a_handler_that_was_installed_later_stays(session: Any) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ending = SignalHandler(session)
    ending.install()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ending.pytest_unconfigure()
    assert signal.signal(signal.SIGTERM, before) is signal.SIG_IGN


def test_ignored_signals_stay_ignored(session: Any) -> None:
    """nohup ignores SIGHUP, and a program may handle SIGTERM itself."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in NUMBERS}
    ending = SignalHandler(session)
    ending.install()
    assert {signal.getsignal(number) for number in NUMBERS} == {signal.SIG_IGN}
    ending.pytest_unconfigure()
    assert {signal.getsignal(number) for number in NUMBERS} == {signal.SIG_IGN}
    for number, handler in before.items():
        signal.signal(number, handler)


class Witness:
    """A plugin that notes who handles SIGTERM before a test, and sends it while the session ends."""

    def __init__(self, *, sends: bool = False) -> None:
        self._sends, self.handlers = sends, []  # type: ignore[var-annotated]

    def pytest_runtest_setup(self) -> None:
        self.handlers.append(signal.getsignal(signal.SIGTERM))

    def pytest_sessionfinish(self) -> None:
        if self._sends:
            signal.raise_signal(signal.SIGTERM)


@pytest.fixture
def default_signals() -> Iterator[None]:
    """Default actions for the signals, as in a new process."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in NUMBERS}
    yield
    for number, handler in before.items():
        assert signal.signal(number, handler) is signal.SIG_DFL


@pytest.mark.slow
@pytest.mark.usefixtures("default_signals")
def test_only_a_run_with_pairs_handles_signals(pytester: pytest.Pytester, cases: Cases) -> None:
    witness = Witness()
    pytester.makeconftest('pytest_plugins = ["harness.plugin.hooks"]')
    pytester.makepyfile("def test_it(): pass")
    pytester.runpytest_inprocess(plugins=[witness]).assert_outcomes(passed=1)
    assert witness.handlers == [signal.SIG_DFL]
    witness = Witness(sends=True)
    record = pytester.path / "run.json"
    result = cases.run("--phase-update-new", "--phase-json", str(record), "-m", "regression", plugins=(witness,))
    assert result.ret == pytest.ExitCode.OK
    assert record.exists()
    assert signal.SIG_DFL not in witness.handlers


@pytest.mark.usefixtures("default_signals")
def test_a_session_in_a_thread_installs_no_handler(cases: Cases) -> None:
    results: list[pytest.RunResult] = []
    thread = threading.Thread(target=lambda: results.append(cases.run("-k", "no_such_test", "-m", "regression")))
    thread.start()
    thread.join()
    assert results[0].ret == pytest.ExitCode.NO_TESTS_COLLECTED


def run(home: Path, *arguments: str, ignoring: bool = False, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "cases/",
        "-p",
        "harness.tests.support.tiny_pairs",
        "-p",
        "no:cacheprovider",
    ]
    command += ["-m", "regression", "--phase-model", "tiny-llava", "--phase-dataset", "tiny", "--phase-samples", "64"]
    command += ["--phase-controls", "blank", "--phase-device", "cpu", "--phase-baselines", str(home / "baselines")]
    command += ["--phase-update-new", "--phase-cache", str(home / "cache"), "--junit-xml", str(home / "junit.xml")]
    command += ["--phase-json", str(home / "run.json"), *arguments]

    def prepare() -> None:
        # Child processes inherit ignored signals if these tests run in the background or under nohup.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        if ignoring:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    return subprocess.run(
        command, env=os.environ | environment, cwd=ROOT, capture_output=True, text=True, preexec_fn=prepare, timeout=300
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_run_ended_by_a_signal_behaves_like_ctrl_c(tmp_path: Path, name: str) -> None:
    ended = run(tmp_path, TINY_FAULT="ended", TINY_SIGNAL=name)
    assert ended.returncode == pytest.ExitCode.INTERRUPTED, ended.stdout + ended.stderr
    message = f"readings are cached in {tmp_path / 'cache'}: the same command continues from there"
    assert "phase: tiny-llava on tiny: ended early; " in ended.stdout
    assert message in ended.stdout
    assert "! KeyboardInterrupt" in ended.stdout
    assert (f"ended by {name}" in ended.stdout) == (name != "SIGINT")
    assert "deselected in " in ended.stdout.splitlines()[-1]
    assert "Traceback" not in ended.stdout + ended.stderr
    assert (tmp_path / "junit.xml").exists()
    assert not (tmp_path / "run.json").exists()
    if name == "SIGTERM":
        assert run(tmp_path).returncode == pytest.ExitCode.OK


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs SIGHUP")
def test_under_nohup_sighup_is_ignored(tmp_path: Path) -> None:
    done = run(tmp_path, ignoring=True, TINY_FAULT="ended", TINY_SIGNAL="SIGHUP")
    assert done.returncode == pytest.ExitCode.OK, done.stdout + done.stderr
