"""Children that are forked, and steps of theirs at which they are killed, refused or made slow."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Callable
from unittest import mock

PAUSE = 0.01
EVENTS = {"open", "os.chmod", "os.mkdir", "os.remove", "os.rename", "fcntl.flock"}
Step = Callable[[str], None]


def fork(work: Callable[[], object]) -> int:
    """Return the process id of a child that does the work; its exit status is 0 where that raises nothing."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    return pid


def wait_for(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def call_at_each_step(step: Step) -> None:
    """From now on calls `step` before everything that this process does to files, and in the middle of each write."""

    class Halves:
        """A file that takes what is written to it in two parts."""

        def __init__(self, handle: int, mode: str) -> None:
            self._file = opened(handle, mode)

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

    opened, sync = os.fdopen, os.fsync
    mock.patch("harness.storage.files.os.fdopen", Halves).start()
    mock.patch("harness.storage.files.os.fsync", lambda handle: (step("fsync"), sync(handle))).start()
    sys.addaudithook(lambda event, _: step(event) if event in EVENTS else None)


def kill_at(at: int) -> Step:
    """Return a step that kills the process when it is called for the time number `at`."""
    calls = iter(range(at + 1))

    def step(_: str) -> None:
        if next(calls, at) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    return step


def refuse_at(at: int) -> Step:
    """Return a step that the system refuses when it is called for the time number `at`."""
    calls = iter(range(at + 1))

    def step(_: str) -> None:
        if next(calls, -1) == at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return step


def pause(_: str) -> None:
    time.sleep(PAUSE)
