"""Atomic writes, removal of the parts of dead processes, and file permissions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.storage.dead_processes import owner_tag
from harness.storage.files import prepare_directory, remove_abandoned_parts, temporary_path, write_atomically
from harness.tests.support.dead import dead_tag

POSIX = pytest.mark.skipif(os.name != "posix", reason="this system has no POSIX permissions")


def test_a_failed_write_leaves_the_old_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_atomically(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


@pytest.fixture(params=[0o022, 0o077, 0o002, 0o027], ids="{:03o}".format)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@POSIX
def test_new_files_and_directories_have_the_permissions_of_the_umask(umask: int, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_atomically(path, b"new", durable=False)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    assert path.parent.stat().st_mode & 0o777 == 0o777 & ~umask


@POSIX
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664, 0o444])
def test_a_replaced_file_keeps_its_permissions(umask: int, mode: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(mode)
    write_atomically(path, b"new", durable=False)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", mode)


def on_another_host(tag: str) -> str:
    """Return the tag with the same process id on another host."""
    return "0123abcd" + tag[8:]


def test_parts_of_dead_processes_are_removed_by_owner_and_not_by_age(tmp_path: Path) -> None:
    abandoned = {f".{dead_tag()}.0.phase-part", f".{dead_tag()}.17.phase-part"}
    stay = {
        f".{owner_tag()}.900.phase-part",
        f".{on_another_host(dead_tag())}.0.phase-part",
        ".one.npz.abc123_x.phase-part",
        "..phase-part",
        f"{dead_tag()}.0.phase-part",
        f".{dead_tag()}.0.npz",
    }
    for name in abandoned | stay:
        (tmp_path / name).write_bytes(b"half")
    for name in stay:
        os.utime(tmp_path / name, (0, 0))
    folder, target = tmp_path / f".{dead_tag()}.1.phase-part", tmp_path / "target"
    for directory in (folder / "deep", target):
        directory.mkdir(parents=True)
        (directory / "weights").write_bytes(b"half")
    (tmp_path / f".{dead_tag()}.2.phase-part").symlink_to(target, target_is_directory=True)
    remove_abandoned_parts(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*stay, "target"}
    assert [path.name for path in target.iterdir()] == ["weights"]


def test_abandoned_parts_are_removed_at_the_first_write_to_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f".{dead_tag()}.0.phase-part").write_bytes(b"half")
    write_atomically(tmp_path / "one" / "file", b"", durable=False)
    prepare_directory(tmp_path / "two")
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["file"]
    assert list((tmp_path / "two").iterdir()) == []
    # Only at the first write, because a directory may hold a hundred thousand readings.
    monkeypatch.setattr("harness.storage.files.remove_abandoned_parts", None)
    write_atomically(tmp_path / "one" / "other", b"", durable=False)


def test_removing_abandoned_parts_from_a_missing_directory_does_nothing(tmp_path: Path) -> None:
    remove_abandoned_parts(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


@POSIX
def test_a_pipe_or_a_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/null")
    for name in ("pipe", "link"):
        with pytest.raises(OSError, match="it is a pipe or a device"):
            write_atomically(tmp_path / name, b"new")
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "link").is_symlink()
    assert len(list(tmp_path.iterdir())) == 2


def test_an_existing_part_is_not_overwritten(tmp_path: Path) -> None:
    part = temporary_path(tmp_path)
    number = int(part.name.split(".")[2])
    names = {part.name.replace(f".{number}.", f".{number + offset}.") for offset in range(1, 4)}
    for name in names:
        (tmp_path / name).write_bytes(b"other content")
    write_atomically(tmp_path / "file", b"new")
    assert {path.name for path in tmp_path.iterdir()} == {*names, "file"}
