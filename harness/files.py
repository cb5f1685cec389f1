"""Writing files in one step, and removing what writes that were killed left behind."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

# Of files that are being written: nobody else's file ends like this, so what is left over may be removed.
_PART = ".phase-part"
_LEFT_OVER = 3600.0


def write_atomically(path: Path, content: bytes | memoryview, *, durable: bool = True) -> None:
    """Puts `content` at `path` in one step: readers see the old file or the new one, never a part.

    Args:
        path: the file; its directory is made.
        content: what it is to hold.
        durable: wait until the disk has it. A file that can be made again need not survive a power cut.

    Raises:
        OSError: the directory is not writable or the disk is full; the old file is untouched.
    """
    write_together({path: content}, durable=durable)


def write_together(files: Mapping[Path, bytes | memoryview], *, durable: bool = True) -> None:
    """Puts files in place that belong together, each in one step, and none before all of them are written out.

    Args:
        files: what each path is to hold, in the order in which they are put in place; directories are made.
        durable: wait until the disk has them.

    Raises:
        OSError: a directory is not writable or the disk is full; the old files are untouched.
    """
    written: dict[Path, Path] = {}
    try:
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_PART)
            written[path] = Path(name)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            Path(name).chmod(0o644)
        for path, part in written.items():
            part.replace(path)
    except BaseException:
        for part in written.values():
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
        raise


def unwritable(directory: Path) -> str:
    """Why no file can be put into a directory, which is made where it is not there; empty where one can."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # A file without a name, where the system has such: two runs that try at once are not in each other's way.
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def sweep(directory: Path) -> None:
    """Removes the parts of files that writes which were killed left in a directory.

    Only those of an hour ago and older: a younger one may be what another process writes just now.
    """
    with contextlib.suppress(OSError):
        for part in directory.glob(f".*{_PART}"):
            with contextlib.suppress(OSError):
                if part.stat().st_mtime < time.time() - _LEFT_OVER:
                    part.unlink()
