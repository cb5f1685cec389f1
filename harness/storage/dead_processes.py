"""Tags in file names that identify the process which owns a file, and a check if that process has ended.

A tag is `<host>-<process id>-<start>`. `host` is a hash of the machine and its process table (each container has one).
`start` is a hash of the process's start time, so a later process with the same id is not taken for the owner. No clock
is read.
"""

from __future__ import annotations

import os
import platform
import re
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from harness.storage.file_names import text_digest

_TAG = re.compile(r"([0-9a-f]{8})-(\d{1,10})-([0-9a-f]{8})", re.ASCII)
_UNKNOWN = "0" * 8
_ENDED = ("Z", "X")  # Linux states of a process that has ended and whose parent has not collected its exit status


def owner_tag() -> str:
    """Return the tag of this process: letters, digits and hyphens, at most 28 characters."""
    # Cached by process id, because a forked process inherits the cache of its parent.
    return _tag(os.getpid())


def is_dead(owner: str) -> bool:
    """Return True if a tag comes from this host and its process has ended.

    Args:
        owner: a tag from `owner_tag`. The result is False for any other text, and for tags of other hosts and
            containers, whose processes are not visible here.
    """
    matched = _TAG.fullmatch(owner)
    if matched is None or matched[1] != _host():
        return False
    pid = int(matched[2])
    if not _exists(pid):
        return True
    state, start = _state_and_start(pid)
    return state in _ENDED or (_UNKNOWN not in (start, matched[3]) and start != matched[3])


@lru_cache(maxsize=1)
def _tag(pid: int) -> str:
    return f"{_host()}-{pid}-{_state_and_start(pid)[1]}"


@lru_cache(maxsize=1)
def _host() -> str:
    """Return a short hash of the host's name, its machine id if any, and its process table."""
    machine = table = ""
    # Hosts that share a file system may have the same name, and the number of the first process table is the same.
    with suppress(OSError, ValueError):
        machine = Path("/etc/machine-id").read_text()
    with suppress(OSError, NotImplementedError):
        table = str(Path("/proc/self/ns/pid").readlink())
    return text_digest(f"{platform.node()}/{machine}/{table}", 8)


def _exists(pid: int) -> bool:
    """Return True if there is a process with this id, or if the system does not reveal it."""
    if os.name != "posix":
        import psutil

        return bool(psutil.pid_exists(pid))
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _state_and_start(pid: int) -> tuple[str, str]:
    """Return a process's state (one letter, Linux only) and a hash of its start time, `_UNKNOWN` if hidden."""
    if not Path("/proc/self/stat").exists():
        import psutil

        with suppress(psutil.Error):
            return "", text_digest(repr(psutil.Process(pid).create_time()), 8)
        return "", _UNKNOWN
    with suppress(OSError, IndexError):
        # Otherwise /proc belongs to another process table than the ids.
        if Path("/proc/self").readlink().name == str(os.getpid()):
            # Ticks since boot do not depend on the clock. The process name before them may contain any character.
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
            return fields[0].decode(), text_digest(f"{boot!r}/{int(fields[19])}", 8)
    return "", _UNKNOWN
