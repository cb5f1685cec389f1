"""Private files and directories: they belong to the user, and nobody else can write them.

The rule is that of OpenSSH's StrictModes: an owner that is the user or root, and no permission to write for others. It
is judged by owner and permission bits. Windows has neither, so everything is private there; access lists beyond the
bits (NFSv4, macOS) are not seen.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

_ENTER, _WRITE = 0o001, 0o002
# Neither a link nor a pipe is followed or waited for; Windows has neither flag, and the last one alone.
_AS_IT_IS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def make_private(root: Path, *below: str) -> Path:
    """Make a directory inside of `root` that only the user can enter; return its path.

    `root` is made where it is missing, for others to read as far as the umask allows, and for nobody else to write.
    Directories that exist stay as they are.

    Raises:
        OSError: one of them cannot be made.
    """
    root.mkdir(mode=0o755, parents=True, exist_ok=True)
    for name in below:
        root /= name
        root.mkdir(mode=0o700, exist_ok=True)
    return root


def find_exposure(directories: Sequence[Path]) -> str:
    """Return why others may have written what lies in the last of some nested directories, or why it is out of reach.

    Args:
        directories: from the outermost to be judged to the innermost; those that do not exist are passed over.

    Returns:
        A clause that names the directory and what is wrong with it; empty if nothing is.
    """
    owners = _owners()
    for directory in directories if owners else ():
        # Reading a file of one that cannot be examined fails for the same reason.
        with suppress(OSError):
            # A link may be another's although the directory is the user's own.
            for status in (directory.lstat(), directory.stat()):
                if status.st_uid not in owners:
                    return f"{directory} belongs to another user (id {status.st_uid})"
            # Such as those that root made for itself.
            if stat.S_ISDIR(status.st_mode) and not os.access(directory, os.X_OK):
                return f"{directory} cannot be entered"
            # In a sticky directory nobody can exchange what is another's.
            writable = _open_to_others(directory, status, _WRITE) and not status.st_mode & stat.S_ISVTX
            if writable and not is_closed_to_others(directory):
                command = f"chmod -R go-w {shlex.quote(str(directories[0]))}"
                return f"others can write to {directory} ({command} forbids it)"
    return ""


def is_closed_to_others(directory: Path) -> bool:
    """Return True if others cannot enter a directory, because of its own permissions or of those of one above it."""
    owners = _owners()
    with suppress(OSError):
        real = directory.resolve()
        for path in (real, *real.parents):
            status = path.stat()
            if status.st_uid in owners and not _open_to_others(path, status, _ENTER):
                return True
    return False


def read_private(path: Path, most_bytes: int, *, sheltered: bool) -> bytes:
    """Return the content of a regular file of the user's own.

    The opened file is judged, so that nobody can exchange it in between.

    Args:
        path: the file.
        most_bytes: the largest size that is read.
        sheltered: others cannot enter the directory of the file, so its own permissions do not matter.

    Raises:
        OSError: it cannot be read; or, without `errno`, it is a link, no regular file, too large, of another user, or
            others can write it. `strerror` is the reason as a phrase.
    """
    if path.is_symlink():
        raise OSError(None, "it is a symbolic link")
    with os.fdopen(os.open(path, _AS_IT_IS), "rb") as file:
        status, owners = os.fstat(file.fileno()), _owners()
        if not stat.S_ISREG(status.st_mode):
            raise OSError(None, "it is no regular file")
        if owners and status.st_uid not in owners:
            raise OSError(None, f"it belongs to another user, id {status.st_uid}")
        if owners and not sheltered and _open_to_others(path, status, _WRITE):
            raise OSError(None, "others can write it")
        if status.st_size > most_bytes:
            raise OSError(None, f"it is larger than {most_bytes:,} bytes")
        return file.read(status.st_size)


def _owners() -> frozenset[int]:
    """Return the ids of users whose files are believed; empty where the system has no such ids."""
    return frozenset((os.geteuid(), 0)) if hasattr(os, "geteuid") else frozenset()


def _open_to_others(path: Path, status: os.stat_result, right: int) -> bool:
    """Return True if somebody but the owner has a right, `_ENTER` or `_WRITE`, by the permission bits."""
    if status.st_mode & right:
        return True
    return bool(status.st_mode & right << 3) and not (status.st_gid == _private_group() and not _has_list(path))


@lru_cache(maxsize=1)
def _private_group() -> int:
    """Return the user's own group where nobody else is in it, else -1.

    Where every user has such a group, as on most Linux systems, the umask lets it write (pam_umask's `usergroups`, by
    the same test).
    """
    with suppress(ImportError, KeyError):
        import grp
        import pwd

        user = pwd.getpwuid(os.geteuid())
        group = grp.getgrgid(user.pw_gid)
        if user.pw_uid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}:
            return group.gr_gid
    return -1


def _has_list(path: Path) -> bool:
    """Return True if a file may have an access list: then the bits of the group are the most that anybody has."""
    try:
        return any("acl" in name for name in os.listxattr(path))
    except (AttributeError, OSError):
        return True
