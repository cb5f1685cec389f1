"""Forked child processes whose file operations are killed, refused or slowed down."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from unittest import mock

PAUSE = 0.01
EVENTS = {"open", "os.chmod", "os.mkdir", "os.remove", "os.rename", "fcntl.flock"}
Step = Callable[[str], None]


def fork(work: Callable[[], object]) -> int:
    """Fork a child that does the work and return its process id.

    The exit status is 0 if the work raises nothing; otherwise the child prints the traceback.
    """
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return pid


def wait_for(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def call_at_each_step(step: Step) -> None:
    """Call `step` before each file operation of this process and in the middle of each write, from this call on."""

    class Halves:
        """A file that splits each write into two parts."""

        def __init__(self, handle: int, mode: str) -> None:
            self._file = open_file(handle, mode)

        def __enter__(self) -> Halves:
            return self

        def __exit__(self, *_: object) -> None:
            self._file.close()

        def write(self, content: bytes) -> None:
            self._file.write(content[: len(content) // 2])
            self._file.flush()
            step("write")
            self._file.write(content[len(content) // 2 :])

        def __getattr__(self, name: str) -> object:
            return getattr(self._file, name)

    open_file, sync = os.fdopen, os.fsync
    mock.patch("harness.storage.files.os.fdopen", Halves).start()
    mock.patch("harness.storage.files.os.fsync", lambda handle: (step("fsync"), sync(handle))).start()
    sys.addaudithook(lambda event, _: step(event) if event in EVENTS else None)


def kill_at(number: int) -> Step:
    """Return a step that kills the process at its call number `number`, counted from 0."""
    calls = iter(range(number + 1))

    def step(_: str) -> None:
        if next(calls, number) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return step


def refuse_at(number: int) -> Step:
    """Return a step that raises ENOSPC at its call number `number`, counted from 0."""
    calls = iter(range(number + 1))

    def step(_: str) -> None:
        if next(calls, -1) == number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return step


def pause(_: str) -> None:
    time.sleep(PAUSE)
