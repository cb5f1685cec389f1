"""A lock on a directory: one process at a time changes what lies in it."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from harness.errors import PhaseError, shown
from harness.files import prepare_directory

LOCK_FILE = ".phase-lock"
_PATIENCE = 60.0  # seconds
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
            with contextlib.suppress(OSError):
                path.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
        yield held
    finally:
        # Removed while it is held: those who wait for it see that it is gone, and make a new one.
        with contextlib.suppress(OSError):
            path.unlink()
        lock.release()


def _holder(path: Path) -> str:
    """Return the process that a lock file names, for messages."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return shown(path.read_text(encoding="utf-8"), 80) or "another process"
    return "another process"
