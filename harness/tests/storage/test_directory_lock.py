"""One process at a time holds the lock of a directory; the wait is bounded and no file remains."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from threading import Thread

import filelock
import pytest

from harness.storage import directory_lock
from harness.storage.directory_lock import LOCK_FILE, LockedError, locked
from harness.tests.support.case_runs import ROOT
from harness.tests.support.disks import read_only_disk

HOLD = (
    "import sys; from pathlib import Path; from harness.storage.directory_lock import locked\n"
    "with locked(Path(sys.argv[1])): print('locked', flush=True); input()"
)


def start_holder(directory: Path) -> subprocess.Popen[str]:
    """Start a process that holds the lock of a directory until it reads a line."""
    command = [sys.executable, "-c", HOLD, str(directory)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    return process


def test_a_released_lock_leaves_no_file_and_can_be_held_again(tmp_path: Path) -> None:
    for _ in range(2):
        with locked(tmp_path / "deep") as is_locked:
            assert is_locked
            assert [path.name for path in (tmp_path / "deep").iterdir()] == [LOCK_FILE]
        assert list((tmp_path / "deep").iterdir()) == []
    with pytest.raises(ValueError, match="in the middle"), locked(tmp_path):
        raise ValueError("in the middle")
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]


def test_a_wait_that_times_out_names_the_process_that_holds_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory_lock, "_PATIENCE", 0.1)
    process = start_holder(tmp_path)
    with (
        pytest.raises(LockedError, match=rf"is being changed by process {process.pid} on .*, which has not released"),
        locked(tmp_path),
    ):
        pass
    assert (tmp_path / LOCK_FILE).exists()
    process.communicate("\n", timeout=300)
    with locked(tmp_path) as is_locked:
        assert is_locked


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_the_lock_of_a_killed_process_is_free_and_its_file_is_removed(tmp_path: Path) -> None:
    process = start_holder(tmp_path)
    process.kill()
    process.communicate(timeout=300)
    assert [path.name for path in tmp_path.iterdir()] == [LOCK_FILE]
    with locked(tmp_path) as is_locked:
        assert is_locked
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_text_of_a_planted_lock_file_is_shortened_and_printable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory_lock, "_PATIENCE", 0.1)
    process = start_holder(tmp_path)
    for planted in (b"\x1b]0;owned\x07" + b"x" * 10_000, b"\xff\xfe", b""):
        (tmp_path / LOCK_FILE).write_bytes(planted)
        with pytest.raises(LockedError, match="is being changed by") as caught, locked(tmp_path):
            pass
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 300 + 2 * len(str(tmp_path))
    process.communicate("\n", timeout=300)


def test_only_one_thread_at_a_time_holds_the_lock(tmp_path: Path) -> None:
    holders: list[int] = []

    def hold(number: int) -> None:
        for _ in range(5):
            with locked(tmp_path):
                holders.append(number)
                assert holders[-1] == number
                holders.append(number)

    threads = [Thread(target=hold, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert holders[::2] == holders[1::2]
    assert len(holders) == 40
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_used_without_a_lock(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl", reason="this system has no fcntl locks")

    def refused(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refused)
    with locked(tmp_path) as is_locked:
        assert not is_locked
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with read_only_disk(), pytest.raises(OSError, match=re.escape(os.strerror(errno.EROFS))), locked(tmp_path / "new"):
        pass
    (tmp_path / LOCK_FILE).mkdir()
    with pytest.raises(OSError, match="directory"), locked(tmp_path):
        pass


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="this system cannot refuse to follow links")
@pytest.mark.skipif(filelock.__version__.startswith("3."), reason="this filelock empties the file that it locks")
def test_a_planted_link_does_not_make_the_lock_write_to_another_file(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("content")
    (tmp_path / LOCK_FILE).symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"), locked(tmp_path):
        pass
    (tmp_path / LOCK_FILE).unlink()
    (tmp_path / LOCK_FILE).hardlink_to(victim)
    with locked(tmp_path) as is_locked:
        assert is_locked
        # Replace the lock file while the lock is held.
        (tmp_path / LOCK_FILE).unlink()
        (tmp_path / LOCK_FILE).symlink_to(victim)
        directory_lock._write_holder(tmp_path / LOCK_FILE)
    assert victim.read_text() == "content"
    assert [path.name for path in tmp_path.iterdir()] == ["victim"]
