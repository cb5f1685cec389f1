"""Checks that files and directories are private: owned by the user, and not writable by anybody else.

The rule follows OpenSSH's StrictModes: the owner is the user or root, and others may not write. Only owner and
permission bits are read. Windows has neither, so everything counts as private there. Access lists beyond the bits
(NFSv4, macOS) are ignored.
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
# Do not follow links and do not wait for pipes. Windows lacks these flags and has only the last one.
_AS_IT_IS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def make_private(root: Path, *below: str) -> Path:
    """Create a directory inside `root` that only the user can enter; return its path.

    A missing `root` is created too; others may read it as far as the umask allows, but not write. Existing directories
    stay unchanged.

    Raises:
        OSError: a directory cannot be created.
    """
    root.mkdir(mode=0o755, parents=True, exist_ok=True)
    for name in below:
        root /= name
        root.mkdir(mode=0o700, exist_ok=True)
    return root


def find_exposure(directories: Sequence[Path]) -> str:
    """Return why others may have written to the innermost of nested directories, or why it cannot be entered.

    Args:
        directories: nested directories, outermost first; missing directories are skipped.

    Returns:
        A clause that names the directory and its problem; empty if there is none.
    """
    owners = _owners()
    for directory in directories if owners else ():
        # If a directory cannot be examined, reading its files fails for the same reason.
        with suppress(OSError):
            # The link may belong to another user although its target does not.
            for status in (directory.lstat(), directory.stat()):
                if status.st_uid not in owners:
                    return f"{directory} belongs to another user (id {status.st_uid})"
            # For example a directory that root created for itself.
            if stat.S_ISDIR(status.st_mode) and not os.access(directory, os.X_OK):
                return f"{directory} cannot be entered"
            # In a sticky directory users cannot replace each other's files.
            writable = _open_to_others(directory, status, _WRITE) and not status.st_mode & stat.S_ISVTX
            if writable and not is_closed_to_others(directory):
                command = f"chmod -R go-w {shlex.quote(str(directories[0]))}"
                return f"others can write to {directory} ({command} forbids it)"
    return ""


def is_closed_to_others(directory: Path) -> bool:
    """Return True if others cannot enter a directory, by its own permissions or those of a parent."""
    owners = _owners()
    with suppress(OSError):
        real = directory.resolve()
        for path in (real, *real.parents):
            status = path.stat()
            if status.st_uid in owners and not _open_to_others(path, status, _ENTER):
                return True
    return False


def read_private(path: Path, most_bytes: int, *, closed_to_others: bool) -> bytes:
    """Return the content of a private regular file.

    The open file is checked, so nobody can replace it in between.

    Args:
        path: the file.
        most_bytes: the largest accepted size.
        closed_to_others: True if others cannot enter the file's directory, so its own permissions do not matter.

    Raises:
        OSError: it cannot be read; or, without `errno`: it is a link, not a regular file, too large, owned by another
            user, or writable by others. `strerror` is the reason as a phrase.
    """
    if path.is_symlink():
        raise OSError(None, "it is a symbolic link")
    with os.fdopen(os.open(path, _AS_IT_IS), "rb") as file:
        status, owners = os.fstat(file.fileno()), _owners()
        if not stat.S_ISREG(status.st_mode):
            raise OSError(None, "it is not a regular file")
        if owners and status.st_uid not in owners:
            raise OSError(None, f"it belongs to another user, id {status.st_uid}")
        if owners and not closed_to_others and _open_to_others(path, status, _WRITE):
            raise OSError(None, "others can write it")
        if status.st_size > most_bytes:
            raise OSError(None, f"it is larger than {most_bytes:,} bytes")
        return file.read(status.st_size)


def _owners() -> frozenset[int]:
    """Return the ids of trusted users; empty if the system has no user ids."""
    return frozenset((os.geteuid(), 0)) if hasattr(os, "geteuid") else frozenset()


def _open_to_others(path: Path, status: os.stat_result, right: int) -> bool:
    """Return True if the permission bits give somebody other than the owner a right, `_ENTER` or `_WRITE`."""
    if status.st_mode & right:
        return True
    return bool(status.st_mode & right << 3) and not (status.st_gid == _private_group() and not _has_list(path))


@lru_cache(maxsize=1)
def _private_group() -> int:
    """Return the id of the user's private group, which has no other members; -1 if there is none.

    Most Linux systems give every user such a group, and the umask lets it write (pam_umask's `usergroups` uses the same
    test).
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
    """Return True if a file may have an access list; the group bits are then only an upper bound."""
    try:
        return any("acl" in name for name in os.listxattr(path))
    except (AttributeError, OSError):
        return True
