"""Cached readings are used only if nobody but the user can have written them."""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.data.datasets import DATASETS
from harness.data.sample import Dataset
from harness.measurement import reading_cache
from harness.storage import private_files
from harness.storage.private_files import find_exposure, is_closed_to_others, make_private
from harness.tests.support.case_runs import PAIR, REGRESSION, Cases
from harness.tests.support.one_reading import ROW, is_stored_row, open_store
from harness.tests.support.tiny import tiny_samples

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="the system has no owners of files")

STRANGER = 4711
AGAIN = "they are measured again; choose another --phase-cache to cache them"


def _is_closed(directory: Path) -> bool:
    return directory.exists() and directory.stat().st_mode & 0o011 == 0


@pytest.fixture
def exposed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let others enter the directories of pytest, and give the user's group further members."""
    monkeypatch.setattr(private_files, "_private_group", lambda: -1)
    for module in (private_files, reading_cache):
        monkeypatch.setattr(module, "is_closed_to_others", _is_closed)


@pytest.fixture
def reading(tmp_path: Path, exposed: None) -> Path:
    """Path of the only reading in a cache, in a directory that others can enter."""
    open_store(tmp_path / "cache").write(["one"], [ROW])
    (path,) = tmp_path.rglob("*.npz")
    return path


@pytest.fixture
def give_away(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Return a function that assigns a file, directory or link (not its target) to another user."""
    # A new file may get the inode number of an old file, but not its time.
    given_away: set[tuple[int, int, int]] = set()
    fstat, stat, lstat = os.fstat, Path.stat, Path.lstat

    def owned(status: os.stat_result) -> os.stat_result:
        if (status.st_dev, status.st_ino, status.st_mtime_ns) not in given_away:
            return status
        return os.stat_result([*status[:4], STRANGER, *status[5:]])

    # Only root can give files away.
    monkeypatch.setattr(os, "fstat", lambda handle: owned(fstat(handle)))
    monkeypatch.setattr(Path, "stat", lambda path, **options: owned(stat(path, **options)))
    monkeypatch.setattr(Path, "lstat", lambda path: owned(lstat(path)))

    def give(path: Path) -> None:
        status = lstat(path)
        given_away.add((status.st_dev, status.st_ino, status.st_mtime_ns))

    return give


def cache_directory(path: Path) -> Path:
    return path.parents[2]


def refused_message(reading: Path) -> str:
    """Return the message about a reading that is not used, and check that nothing is written."""
    before = {path: path.lstat().st_mtime_ns for path in cache_directory(reading).rglob("*")}
    lines: list[str] = []
    store = open_store(cache_directory(reading), lines)
    assert store.read(["one"]) is None
    store.write(["one", "two"], [ROW, ROW])
    assert store.read(["one"]) is None
    assert not store.keeps_all
    store.close()
    assert {path: path.lstat().st_mtime_ns for path in cache_directory(reading).rglob("*")} == before
    (line,) = lines
    return line


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
def test_readings_in_a_directory_that_others_can_write_are_ignored(reading: Path, depth: int, mode: int) -> None:
    directory = reading.parents[depth]
    assert is_stored_row(open_store(cache_directory(reading)).read_one("one"))
    directory.chmod(mode)
    command = f"chmod -R go-w {cache_directory(reading)}"
    assert refused_message(reading) == (
        f"readings are neither used nor cached, because others can write to {directory} ({command} forbids it): {AGAIN}"
    )
    # After the suggested command, the user's own readings are used again.
    subprocess.run(shlex.split(command), check=True)
    assert is_stored_row(open_store(cache_directory(reading)).read_one("one"))


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_readings_in_a_directory_of_another_user_are_ignored(
    reading: Path, give_away: Callable[[Path], None], depth: int
) -> None:
    give_away(reading.parents[depth])
    assert refused_message(reading) == (
        f"readings are neither used nor cached, because {reading.parents[depth]} belongs to another user "
        f"(id {STRANGER}): {AGAIN}"
    )


def test_a_directory_that_only_root_can_enter_is_reported_once(reading: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container image whose cache root has filled. Root itself can enter every directory."""
    closed = reading.parents[1]
    monkeypatch.setattr(private_files.os, "access", lambda path, _: path != closed)
    assert (
        refused_message(reading) == f"readings are neither used nor cached, because {closed} cannot be entered: {AGAIN}"
    )


def plant_owner(path: Path, give_away: Callable[[Path], None]) -> str:
    give_away(path)
    return f"it belongs to another user, id {STRANGER}"


def plant_writable(path: Path, _: object) -> str:
    path.parent.chmod(0o755)
    path.chmod(0o664)
    return "others can write it"


def plant_link(path: Path, _: object) -> str:
    shutil.move(path, path.parents[3] / "elsewhere.npz")
    path.symlink_to(path.parents[3] / "elsewhere.npz")
    return "it is a symbolic link"


def plant_pipe(path: Path, _: object) -> str:
    path.unlink()
    os.mkfifo(path)
    return "it is not a regular file"


def plant_giant(path: Path, _: object) -> str:
    with path.open("r+b") as file:
        file.truncate(1 << 40)
    return "it is larger than 4,294,967,296 bytes"


@pytest.mark.parametrize("plant", [plant_owner, plant_writable, plant_link, plant_pipe, plant_giant])
def test_a_planted_reading_is_named_and_measured_again(
    reading: Path, give_away: Callable[[Path], None], plant: Callable[[Path, object], str]
) -> None:
    content = reading.read_bytes()
    reason = plant(reading, give_away)
    lines: list[str] = []
    store = open_store(cache_directory(reading), lines)
    assert store.read(["one"]) is None
    assert lines == [f"the file of cached readings {reading} is not used ({reason}): they are measured again"]
    store.write(["one"], [ROW])
    assert reading.is_file()
    assert not reading.is_symlink()
    assert reading.read_bytes() == content
    assert is_stored_row(open_store(cache_directory(reading)).read_one("one"))


def test_a_link_of_another_user_is_not_followed(reading: Path, give_away: Callable[[Path], None]) -> None:
    shutil.move(reading.parent, cache_directory(reading).with_name("moved"))
    reading.parent.symlink_to(cache_directory(reading).with_name("moved"))
    assert is_stored_row(open_store(cache_directory(reading)).read_one("one"))
    give_away(reading.parent)
    assert f"{reading.parent} belongs to another user" in refused_message(reading)


def test_the_permissions_of_a_linked_directory_are_those_of_its_target(reading: Path) -> None:
    behind = cache_directory(reading).with_name("moved")
    shutil.move(reading.parent, behind)
    reading.parent.symlink_to(behind)
    behind.chmod(0o777)
    assert f"others can write to {reading.parent}" in refused_message(reading)


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_readings_written_under_any_umask_are_used(tmp_path: Path, exposed: None, umask: int) -> None:
    tmp_path.chmod(0o777)
    lines: list[str] = []
    before = os.umask(umask)
    try:
        open_store(tmp_path / "cache", lines).write(["one"], [ROW])
    finally:
        os.umask(before)
    (path,) = tmp_path.rglob("*.npz")
    # The mode under a umask of 002.
    path.chmod(0o664)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert cache_directory(path).stat().st_mode & 0o022 == 0
    assert is_stored_row(open_store(cache_directory(path), lines).read_one("one"))
    assert lines == []


def test_files_of_root_and_sticky_directories_are_private(
    reading: Path, monkeypatch: pytest.MonkeyPatch, give_away: Callable[[Path], None]
) -> None:
    cache_directory(reading).chmod(0o1777)
    assert is_stored_row(open_store(cache_directory(reading)).read_one("one"))
    # Trust both the other user, in the role of root, and this user.
    user_id = os.geteuid()
    monkeypatch.setattr(private_files, "_owners", lambda: frozenset((STRANGER, user_id)))
    give_away(reading)
    assert is_stored_row(open_store(cache_directory(reading)).read_one("one"))


def test_everything_below_a_closed_directory_is_private(tmp_path: Path) -> None:
    home = tmp_path / "home"
    inner = home / "cache" / "readings"
    inner.mkdir(parents=True)
    for path in (inner, inner.parent, home, tmp_path):
        path.chmod(0o777)
    assert not is_closed_to_others(inner) or is_closed_to_others(tmp_path)
    home.chmod(0o700)
    assert is_closed_to_others(inner)
    assert find_exposure([home / "cache", inner]) == ""


def test_a_group_with_the_user_as_its_only_member_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_files, "is_closed_to_others", lambda _: False)
    tmp_path.chmod(0o775)
    group = tmp_path.stat().st_gid
    user = SimpleNamespace(pw_uid=1000, pw_name="ann", pw_gid=group)
    monkeypatch.setattr(pwd, "getpwuid", lambda _: user)

    def problem(name: str, *members: str) -> str:
        monkeypatch.setattr(grp, "getgrgid", lambda _: SimpleNamespace(gr_gid=group, gr_name=name, gr_mem=members))
        private_files._private_group.cache_clear()
        return find_exposure([tmp_path])

    try:
        assert problem("ann") == problem("ann", "ann") == ""
        command = f"chmod -R go-w {tmp_path}"
        shared = f"others can write to {tmp_path} ({command} forbids it)"
        assert problem("ann", "bob") == problem("staff") == shared
        user.pw_uid = 0
        assert problem("ann") == shared
        user.pw_uid = 1000
        monkeypatch.setattr(os, "listxattr", lambda _: ["system.posix_acl_access"], raising=False)
        assert problem("ann") == shared
        monkeypatch.setattr(os, "listxattr", lambda _: [], raising=False)
        tmp_path.chmod(0o777)
        assert problem("ann") == shared
    finally:
        private_files._private_group.cache_clear()


def test_on_a_system_without_file_owners_everything_is_private(reading: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has no file owners."""
    monkeypatch.delattr(os, "geteuid")
    reading.parent.chmod(0o777)
    assert is_stored_row(open_store(cache_directory(reading)).read_one("one"))
    assert find_exposure([cache_directory(reading), reading.parent]) == ""


def test_cache_directories_are_created_for_the_user_only(tmp_path: Path) -> None:
    directory = make_private(tmp_path / "a" / "cache", "b", "c")
    assert directory == tmp_path / "a" / "cache" / "b" / "c"
    assert [path.stat().st_mode & 0o777 for path in (directory, *directory.parents[:2])] == [
        0o700,
        0o700,
        0o755,
    ]
    # An existing directory keeps its permissions.
    directory.chmod(0o750)
    make_private(tmp_path / "a" / "cache", "b", "c")
    assert directory.stat().st_mode & 0o777 == 0o750


@pytest.mark.slow
def test_a_run_reports_once_that_others_can_write_to_the_cache(
    cases: Cases, exposed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DATASETS, "again", Dataset("again", "again", lambda n, *_: tiny_samples(n)))
    cases.cache.mkdir()
    cases.cache.chmod(0o777)
    pairs = (*PAIR, "--phase-dataset", "again")
    out = cases.run("--phase-update-new", *REGRESSION, "-k", "test_reproduces", pair=pairs).stdout.str()
    assert out.count("readings are neither used nor cached, because others can write to") == 1
    assert "baselines: 0 matched, 0 changed, 2 new" in out
    assert list(cases.cache.rglob("*.npz")) == []
