"""Atomic writes, and removal of the partial files that killed processes left behind."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from harness.storage.dead_processes import is_dead, owner_tag

# Suffix of files and directories that are being written; their names begin with the owner's tag.
_PART = ".phase-part"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_TRIES = 100  # of new names for a temporary file
_numbers = itertools.count()
_swept: set[Path] = set()


def write_atomically(path: Path, content: bytes | memoryview, *, durable: bool = True) -> None:
    """Replace a file atomically: readers see the old content or the new, never a part.

    A new file gets the permissions of the umask; a replaced file keeps its own.

    Args:
        path: the file; its directory is created if needed.
        content: the new content.
        durable: True to wait until the disk has stored it; unnecessary for a file that can be made again.

    Raises:
        OSError: the directory is not writable or the disk is full; the old file is untouched.
    """
    write_together({path: content}, durable=durable)


def write_together(files: Mapping[Path, bytes | memoryview], *, durable: bool = True) -> None:
    """Replace files that belong together, each atomically, and none before all of them are written.

    Args:
        files: new content by path, replaced in this order; directories are created.
        durable: True to wait until the disk has stored each file before the next is replaced.

    Raises:
        OSError: a directory is not writable or the disk is full; the old files are untouched.
    """
    written: dict[Path, Path] = {}
    try:
        for path, content in files.items():
            prepare_directory(path.parent)
            mode = _mode(path)
            part, handle = _opened_part(path.parent, 0o666 if mode is None else mode)
            written[path] = part
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            if mode is not None:
                with contextlib.suppress(OSError):
                    part.chmod(mode)
        for path, part in written.items():
            part.replace(path)
            if durable:
                _sync_names(path.parent)
    except BaseException:
        for part in written.values():
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
        raise


def temporary_path(directory: Path) -> Path:
    """Return a new path for a file or directory that is being written.

    `remove_abandoned_parts` removes it once this process is dead.
    """
    return directory / f".{owner_tag()}.{next(_numbers)}{_PART}"


def prepare_directory(directory: Path) -> None:
    """Create a directory and, the first time in this process, remove abandoned temporary files in it.

    Raises:
        OSError: it cannot be created.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if directory.absolute() not in _swept:
        remove_abandoned_parts(directory)


def remove_abandoned_parts(directory: Path) -> None:
    """Remove the temporary files and directories of dead processes, whatever their age.

    Their names identify the owner. Files of running processes stay, and files of other hosts, whose processes are not
    visible here.
    """
    _swept.add(directory.absolute())
    with contextlib.suppress(OSError):
        for part in directory.glob(f".*{_PART}"):
            if is_dead(part.name.split(".")[1]):
                if part.is_dir() and not part.is_symlink():
                    shutil.rmtree(part, ignore_errors=True)
                else:
                    with contextlib.suppress(OSError):
                        part.unlink()


def unwritable_reason(directory: Path) -> str:
    """Return why no file can be written to a directory, or "" if one can. Creates the directory if needed."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # The file has no name where the system allows it, so concurrent runs do not disturb each other.
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _opened_part(directory: Path, mode: int) -> tuple[Path, int]:
    """Return a new file and its handle.

    The system applies the umask, because reading the umask would set it for all threads.
    """
    for _ in range(_TRIES):
        part = temporary_path(directory)
        with contextlib.suppress(FileExistsError):
            return part, os.open(part, _NEW, mode)
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(part))


def _mode(path: Path) -> int | None:
    """Return the permissions of a file, or None if it does not exist.

    Raises:
        OSError: it is a pipe or a device, which a file must not replace.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(None, "it is a pipe or a device")
    return stat.S_IMODE(mode) & 0o777


def _sync_names(directory: Path) -> None:
    """Wait until the disk has stored the names in a directory, on systems that support it."""
    with contextlib.suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
