"""A lock on a directory: only one process at a time changes its files."""

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
_LONGEST = 300  # bytes that are read of a lock file
_WRITE = os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
# Some network and container file systems have no locks.
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}


class LockedError(PhaseError):
    """Another process held the lock of a directory for too long; the message names both."""


@contextlib.contextmanager
def locked(directory: Path, patience: float | None = None) -> Iterator[bool]:
    """Create a directory and hold its lock. The system releases the lock when the process ends, even if killed.

    Args:
        directory: the directory.
        patience: seconds to wait for another process that holds the lock; a minute if None.

    Yields:
        True, or False if the file system has no locks, so others may change the directory meanwhile.

    Raises:
        LockedError: another process does not release the lock in time.
        OSError: the directory cannot be created or written to.
    """
    from filelock import FileLock, Timeout

    seconds = _PATIENCE if patience is None else patience
    prepare_directory(directory)
    path = directory / LOCK_FILE
    lock = FileLock(path, timeout=seconds, fallback_to_soft=False)
    is_locked = True
    try:
        lock.acquire()
    except Timeout:
        raise LockedError(
            f"{directory} is being changed by {_holder(path)}, which has not released {path} within {seconds:.0f} s; "
            "wait until it ends and run again"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        is_locked = False
    try:
        if is_locked:
            _write_holder(path)
        yield is_locked
    finally:
        # Remove the file while holding the lock: waiting processes notice and create a new one.
        with contextlib.suppress(OSError):
            path.unlink()
        with contextlib.suppress(OSError):
            lock.release()


def _write_holder(path: Path) -> None:
    """Write this process's id into its lock file, for the messages of other processes."""
    with contextlib.suppress(OSError):
        handle = os.open(path, _WRITE)
        try:
            # Somebody else may have put a hard link to another file here.
            if os.fstat(handle).st_nlink == 1:
                os.ftruncate(handle, os.write(handle, f"process {os.getpid()} on {platform.node()}".encode()))
        finally:
            os.close(handle)


def _holder(path: Path) -> str:
    """Return the process that a lock file names, as text for a message."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return printable(read_regular(path, _LONGEST).decode()) or "another process"
    return "another process"
