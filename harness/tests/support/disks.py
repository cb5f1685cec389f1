"""Simulated full and read-only disks. They are simulated because root ignores real ones."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import IO, Any
from unittest import mock


@contextlib.contextmanager
def full_disk(after: int = 0) -> Iterator[None]:
    """Write the first `after` files normally; later files open, but every write to them fails with ENOSPC."""
    written = [0]

    def opened(handle: int, mode: str) -> IO[Any]:
        written[0] += 1
        if written[0] <= after:
            return os.fdopen(handle, mode)
        os.close(handle)
        # Linux's device that is always full.
        return open("/dev/full", mode)  # noqa: PTH123

    with mock.patch("harness.storage.files.os", mock.Mock(wraps=os, fdopen=opened)):
        yield


@contextlib.contextmanager
def read_only_disk() -> Iterator[None]:
    """Raise EROFS for every new file and directory."""

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with contextlib.ExitStack() as stack:
        for name in ("tempfile.TemporaryFile", "os.mkdir"):
            stack.enter_context(mock.patch(name, refused))
        stack.enter_context(mock.patch("harness.storage.files.os", mock.Mock(wraps=os, open=refused)))
        yield
