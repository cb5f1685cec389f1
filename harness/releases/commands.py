"""Commands that run in other environments, with their output in a log; an interruption ends them too."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, NamedTuple, Protocol

from harness.errors import PhaseError, last_line

_TIMEOUT_SECONDS = 7200
_GRACE_SECONDS = 5.0  # between SIGTERM and SIGKILL
# Commands of all threads. They have process groups of their own, so that a terminal's Ctrl-C does not reach them.
_running: set[subprocess.Popen[bytes]] = set()
_stopped = threading.Event()
_log_lock = threading.Lock()


class CommandResult(NamedTuple):
    """The exit status of a command and its output on both streams."""

    status: int
    text: str

    @property
    def reason(self) -> str:
        """The first error that pip reports, else the last line of the output."""
        lines = map(str.strip, self.text.splitlines())
        errors = (line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: "))
        error = next((line for line in errors if not line.startswith("Ignored the following")), None)
        # pip lists all releases of a package; the word "none" means that it did not reach the index.
        return re.sub(r" \(from versions: .{40,}\)", "", error or last_line(self.text, "no message").strip())


class Runner(Protocol):
    """Runs a command in a directory, with environment variables, and appends its output to a log."""

    def __call__(
        self, command: Sequence[str], directory: Path, log: Path, variables: Mapping[str, str] | None = None
    ) -> CommandResult:
        """Return the exit status and the output."""


class StoppedError(PhaseError):
    """A command was not run because `run_parallel` is ending."""


def run_command(
    command: Sequence[str], directory: Path, log: Path, variables: Mapping[str, str] | None = None
) -> CommandResult:
    """Run a command without this process's PYTHONPATH and PYTEST_ADDOPTS.

    An interrupted or terminated parent ends the command and all of its children first.

    Args:
        command: program and arguments.
        directory: the working directory.
        log: file to which command, output and exit status are appended.
        variables: environment variables to set.

    Returns:
        The exit status and the output; status 124 after two hours, 127 if the program cannot be started.

    Raises:
        StoppedError: another thread of `run_parallel` failed or was interrupted.
    """
    _raise_if_stopped(command[0])
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTEST_ADDOPTS")}
    with tempfile.TemporaryFile() as output, _exit_when_terminated():
        status, remark = _run(command, directory, clean | dict(variables or {}), output)
        output.seek(0)
        result = CommandResult(status, output.read().decode(errors="replace") + remark)
    log.parent.mkdir(parents=True, exist_ok=True)
    with _log_lock, log.open("a", encoding="utf-8") as file:
        file.write(f"$ {' '.join(command)}\n{result.text}\n[exit status {result.status}]\n")
    return result


def run_parallel(function: Callable[[int], None], count: int) -> None:
    """Call a function that runs commands with 0 to `count` - 1, each in a thread, and wait for all of them.

    An interruption, a SIGTERM or an exception in one thread ends the commands of all threads. The exception is raised.
    """
    try:
        with _exit_when_terminated(), ThreadPoolExecutor(count) as pool:
            try:
                for call in as_completed([pool.submit(function, number) for number in range(count)]):
                    call.result()
            except BaseException:
                _stopped.set()
                for process in list(_running):
                    _end_group(process)
                raise
    finally:
        _stopped.clear()


def _raise_if_stopped(program: str) -> None:
    if _stopped.is_set() and not _handles_signals():
        raise StoppedError(f"{program} was not run to its end, because another command failed or was interrupted")


def _run(command: Sequence[str], directory: Path, variables: Mapping[str, str], output: IO[bytes]) -> tuple[int, str]:
    """Return the exit status and a remark; an exception, such as an interruption, ends the process group first."""
    process: subprocess.Popen[bytes] | None = None
    try:
        with _uninterrupted():
            process = subprocess.Popen(  # noqa: S603 - the commands are our own
                command,
                cwd=directory,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            _running.add(process)
        # The others may have been ended just before this command was added to them.
        _raise_if_stopped(command[0])
        return process.wait(_TIMEOUT_SECONDS), ""
    except OSError as error:
        return 127, str(error)
    except subprocess.TimeoutExpired:
        return 124, f"\nit took longer than {_TIMEOUT_SECONDS} s"
    finally:
        if process is not None:
            if process.returncode is None:
                _end_group(process)
            _running.discard(process)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        with suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, number)
            else:
                process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)
            return


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Delay SIGINT and SIGTERM until the end of the block, where a started process is known and can be ended."""
    if not _handles_signals():
        yield
        return
    pending: list[int] = []
    numbers = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not None]
    handlers = {number: signal.signal(number, lambda number, _: pending.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for received in pending:
        signal.raise_signal(received)


@contextmanager
def _exit_when_terminated() -> Iterator[None]:
    """Make SIGTERM raise SystemExit, so that a running command ends before this process does."""
    if not _handles_signals() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _handles_signals() -> bool:
    """Return True in the main thread, the only one that handles signals."""
    return threading.current_thread() is threading.main_thread()
