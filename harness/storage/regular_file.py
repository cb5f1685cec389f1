"""Reads of regular files of bounded size; no other file of a dataset or checkpoint is opened."""

from __future__ import annotations

import os
import stat
from pathlib import Path

# Opening a pipe would wait for a writer. Windows lacks the flag.
_AT_ONCE = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)


def require_regular(path: Path, most_bytes: int) -> int:
    """Raise an error unless a path leads to a regular file of bounded size; return the size in bytes.

    Links are followed. Pipes, sockets and devices are not opened, because they may block or never end.

    Raises:
        OSError: there is no such file, or it is a directory, a pipe, a device or larger than `most_bytes`; `strerror`
            is the reason as a phrase.
        ValueError: the path is invalid on every file system.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(None, "it is a directory")
    if not stat.S_ISREG(status.st_mode) or (status.st_size == 0 and _has_content(path)):
        raise OSError(None, "it is a pipe or a device")
    return _checked_size(status, most_bytes)


def read_regular(path: Path, most_bytes: int) -> bytes:
    """Return the content of a regular file of bounded size.

    Raises:
        OSError, ValueError: as `require_regular`.
    """
    require_regular(path, most_bytes)
    with path.open("rb") as file:
        # Another process may have replaced the file since the check. It may also grow during the read.
        return file.read(_checked_size(os.fstat(file.fileno()), most_bytes))


def _checked_size(status: os.stat_result, most_bytes: int) -> int:
    if status.st_size > most_bytes:
        raise OSError(None, f"it is larger than {most_bytes:,} bytes")
    return status.st_size


def _has_content(path: Path) -> bool:
    """Return True if a file of size 0 has content, as the kernel's virtual files have (/proc/kmsg)."""
    handle = os.open(path, _AT_ONCE)
    try:
        return bool(os.read(handle, 1))
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
