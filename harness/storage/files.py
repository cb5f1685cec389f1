"""Writing files in one step, and removing what writes that were killed left behind."""

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

# The end of the names of files and directories that are being written; the start is the tag of the owner.
_PART = ".phase-part"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_TRIES = 100  # of names for a part
_numbers = itertools.count()
_swept: set[Path] = set()


def write_atomically(path: Path, content: bytes | memoryview, *, durable: bool = True) -> None:
    """Put `content` at `path` in one step: readers see the old file or the new one, never a part.

    A new file has the permissions of the umask, a replaced one keeps its own.

    Args:
        path: the file; its directory is made.
        content: what it is to hold.
        durable: wait until the disk has it. A file that can be made again need not survive a power cut.

    Raises:
        OSError: the directory is not writable or the disk is full; the old file is untouched.
    """
    write_together({path: content}, durable=durable)


def write_together(files: Mapping[Path, bytes | memoryview], *, durable: bool = True) -> None:
    """Put files in place that belong together, each in one step, and none before all of them are written out.

    Args:
        files: what each path is to hold, in the order in which they are put in place; directories are made.
        durable: wait until the disk has them, each before the next is put in place.

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
    """Return a new path for a file or directory that is being written; `sweep` removes it when this process is dead."""
    return directory / f".{owner_tag()}.{next(_numbers)}{_PART}"


def prepare_directory(directory: Path) -> None:
    """Make a directory and, the first time in this process, remove what killed writes left in it.

    Raises:
        OSError: it cannot be made.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if directory.absolute() not in _swept:
        remove_abandoned_parts(directory)


def remove_abandoned_parts(directory: Path) -> None:
    """Remove what writes that were killed left in a directory, whatever its age.

    The name says which process owns it. The parts of running processes stay, and those of other hosts, whose processes
    cannot be seen from here.
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
    """Why no file can be put into a directory, which is made where it is not there; empty where one can."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # A file without a name, where the system has such: two runs that try at once are not in each other's way.
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _opened_part(directory: Path, mode: int) -> tuple[Path, int]:
    """Return a new file and its handle. The system applies the umask: to ask for it is to set it for all threads."""
    for _ in range(_TRIES):
        part = temporary_path(directory)
        with contextlib.suppress(FileExistsError):
            return part, os.open(part, _NEW, mode)
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(part))


def _mode(path: Path) -> int | None:
    """Return the permissions of a file, None where there is none.

    Raises:
        OSError: it is a pipe or a device, which a file must not take the place of.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(None, "it is a pipe or a device")
    return stat.S_IMODE(mode) & 0o777


def _sync_names(directory: Path) -> None:
    """Wait until the disk has the names in a directory; not every system can be asked for that."""
    with contextlib.suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
