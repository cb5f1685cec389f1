"""Commands that run in other environments, with their output in a log; an interruption ends them too."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NamedTuple, Protocol

from harness.errors import last_line

_TIMEOUT_SECONDS = 7200
_GRACE_SECONDS = 5.0  # between SIGTERM and SIGKILL


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
    """
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTEST_ADDOPTS")}
    with tempfile.TemporaryFile() as output, _exit_when_terminated():
        try:
            process = subprocess.Popen(  # noqa: S603 - the commands are our own
                command,
                cwd=directory,
                env=clean | dict(variables or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            result = CommandResult(127, str(error))
        else:
            status, remark = _wait(process)
            output.seek(0)
            result = CommandResult(status, output.read().decode(errors="replace") + remark)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {' '.join(command)}\n{result.text}\n[exit status {result.status}]\n")
    return result


def _wait(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Return the exit status and a remark; an exception, such as an interruption, ends the process group first."""
    try:
        return process.wait(_TIMEOUT_SECONDS), ""
    except subprocess.TimeoutExpired:
        return 124, f"\nit took longer than {_TIMEOUT_SECONDS} s"
    finally:
        if process.returncode is None:
            _end_group(process)


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
def _exit_when_terminated() -> Iterator[None]:
    """Make SIGTERM raise SystemExit, so that a running command ends before this process does."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
