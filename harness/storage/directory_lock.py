"""A lock on a directory: one process at a time changes what lies in it."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from harness.errors import PhaseError, printable
from harness.storage.files import prepare_directory
from harness.storage.regular_file import read_regular

LOCK_FILE = ".phase-lock"
_PATIENCE = 60.0  # seconds
_LONGEST = 300  # bytes that a lock file says
_WRITE = os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
# Some file systems of networks and containers have no locks.
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}


class LockedError(PhaseError):
    """Another process holds the lock of a directory for too long; the message names both."""


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[bool]:
    """Hold the lock of a directory, which is made. The system releases it when the process ends, however it ends.

    Yields:
        True, or False where the file system has no locks: others may change the directory meanwhile.

    Raises:
        LockedError: another process does not release it within a minute.
        OSError: the directory cannot be made or written to.
    """
    from filelock import FileLock, Timeout

    prepare_directory(directory)
    path = directory / LOCK_FILE
    lock = FileLock(path, timeout=_PATIENCE, fallback_to_soft=False)
    held = True
    try:
        lock.acquire()
    except Timeout:
        raise LockedError(
            f"{directory} is being changed by {_holder(path)}, which has not released {path} within {_PATIENCE:.0f} s; "
            "let it end and run again"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        held = False
    try:
        if held:
            _say_holder(path)
        yield held
    finally:
        # Removed while it is held: those who wait for it see that it is gone, and make a new one.
        with contextlib.suppress(OSError):
            path.unlink()
        with contextlib.suppress(OSError):
            lock.release()


def _say_holder(path: Path) -> None:
    """Write this process into its lock file, for the messages of others."""
    with contextlib.suppress(OSError):
        handle = os.open(path, _WRITE)
        try:
            # Another name of the file may have been put there by somebody else.
            if os.fstat(handle).st_nlink == 1:
                os.ftruncate(handle, os.write(handle, f"process {os.getpid()} on {platform.node()}".encode()))
        finally:
            os.close(handle)


def _holder(path: Path) -> str:
    """Return the process that a lock file names, for messages."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return printable(read_regular(path, _LONGEST).decode()) or "another process"
    return "another process"
