"""Files of cached readings: flipped bits, full disks, read-only caches and concurrent runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.measurement import reading_cache
from harness.measurement.reading_cache import ReadingCacheError, cache_problem
from harness.storage.dead_processes import owner_tag
from harness.storage.file_names import text_digest
from harness.storage.private_files import read_private
from harness.tests.support.case_runs import ROOT
from harness.tests.support.damaged import damaged_copies, replace_file
from harness.tests.support.dead import dead_tag
from harness.tests.support.disks import full_disk, read_only_disk
from harness.tests.support.one_reading import KEY, NAMES, ROW, is_stored_row, open_store


@pytest.fixture
def reading(tmp_path: Path) -> Path:
    """Path of the only file of readings in a cache; its reading is named `one`."""
    open_store(tmp_path / "cache").write(["one"], [ROW])
    (path,) = tmp_path.rglob("*.npz")
    return path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files of readings that are read, in order."""
    names: list[str] = []

    def counted(path: Path, *args: Any, **options: Any) -> bytes:
        content = read_private(path, *args, **options)
        names.append(path.name)
        return content

    monkeypatch.setattr(reading_cache, "read_private", counted)
    return names


def cache_directory(path: Path) -> Path:
    return path.parents[2]


def file_of(*names: str) -> str:
    """Return the name of the file that holds these readings."""
    return f"{text_digest(json.dumps(names), 32)}.npz"


def test_a_reading_is_read_back_exactly_and_its_key_is_stored_beside_it(reading: Path) -> None:
    lines: list[str] = []
    assert is_stored_row(open_store(cache_directory(reading), lines).read_one("one"))
    assert open_store(cache_directory(reading), lines).read(["one", "two"]) is None
    assert lines == []
    assert json.loads((reading.parent / "key.json").read_text()) == {"format": 2, **KEY}
    assert sorted(path.name for path in reading.parent.iterdir()) == sorted(["key.json", file_of("one")])
    with np.load(reading, allow_pickle=False) as plain:
        assert plain["hits"].tolist() == [ROW["hits"].tolist()]


@pytest.mark.slow
def test_a_reading_with_any_flipped_bit_is_named_and_not_used(reading: Path) -> None:
    content = reading.read_bytes()
    count = 0
    for damaged in damaged_copies(content, len(content), 300):
        replace_file(reading, damaged)
        lines: list[str] = []
        store = open_store(cache_directory(reading), lines)
        assert store.read(["one"]) is None
        assert lines == [
            f"the file of cached readings {reading} is damaged (its checksum does not match): they are measured again"
        ]
        assert not reading.exists()
        count += 1
    assert count == len(content) + 301
    assert store.read_one("one") is None
    assert len(lines) == 1
    store.write(["one"], [ROW])
    assert reading.read_bytes() == content


def test_a_file_under_the_name_or_key_of_another_is_not_used(reading: Path) -> None:
    shutil.copy(reading, reading.with_name(file_of("two")))
    lines: list[str] = []
    assert open_store(cache_directory(reading), lines).read_one("two") is None
    other = {**KEY, "weights": "4567"}
    open_store(cache_directory(reading), lines, other).write(["two"], [ROW])
    (elsewhere,) = cache_directory(reading).rglob(file_of("two"))
    shutil.copy(reading, elsewhere.with_name(file_of("one")))
    assert open_store(cache_directory(reading), lines, other).read_one("one") is None
    assert [line.split(" is damaged")[0].split()[-1] for line in lines] == [
        str(reading.with_name(file_of("two"))),
        str(elsewhere.with_name(file_of("one"))),
    ]


def test_a_batch_is_one_file_and_is_read_once(tmp_path: Path, reads: list[str]) -> None:
    batches = [NAMES[:3], NAMES[3:6], NAMES[6:]]
    for names in batches:
        open_store(tmp_path).write(names, [ROW] * len(names))
    files = [file_of(*names) for names in batches]
    assert {path.name for path in tmp_path.rglob("*.npz")} == {*files}
    store = open_store(tmp_path)
    assert [len(store.read(names) or ()) for names in batches[1:]] == [3, 2]
    assert reads == files[1:], "the files of other batches are not read"
    # Another run composes its batches differently.
    reads.clear()
    store = open_store(tmp_path)
    for names in (NAMES[::2], NAMES[1::2], [*NAMES[:2], "absent"], ["absent"]):
        rows = store.read(names)
        assert rows is None if "absent" in names else all(map(is_stored_row, rows or [None]))
    assert sorted(reads) == sorted(files)


def test_the_readings_of_many_files_do_not_fill_the_memory(tmp_path: Path) -> None:
    row, names = {"means": np.zeros(2**17)}, [f"{number}" for number in range(40)]
    for first in range(0, 40, 2):
        open_store(tmp_path).write(names[first : first + 2], [row] * 2)
    store = open_store(tmp_path)
    tracemalloc.start()
    try:
        assert all(store.read_one(name) is not None for name in reversed(names))
        assert tracemalloc.get_traced_memory()[0] < 36 * row["means"].nbytes
    finally:
        tracemalloc.stop()


def test_new_files_of_another_process_are_read_when_a_reading_is_absent(tmp_path: Path) -> None:
    store, other = open_store(tmp_path), open_store(tmp_path)
    assert store.read(["one"]) is None
    other.write(["one"], [ROW])
    assert is_stored_row(store.read_one("one"))


def test_of_equal_names_the_newest_file_counts(tmp_path: Path) -> None:
    newer = {**ROW, "hits": ROW["hits"] + 1}
    open_store(tmp_path).write(["one", "two"], [ROW, ROW])
    open_store(tmp_path).write(["one", "three"], [newer, newer])
    for age, names in enumerate((["one", "three"], ["one", "two"])):
        (path,) = tmp_path.rglob(file_of(*names))
        os.utime(path, ns=(0, 10**9 * (9 - age)))
    row = open_store(tmp_path).read_one("one")
    assert row is not None
    assert row["hits"].tolist() == newer["hits"].tolist()


def test_a_damaged_file_loses_its_readings_alone_and_is_removed(tmp_path: Path) -> None:
    for part in (NAMES[:4], NAMES[4:]):
        open_store(tmp_path).write(part, [ROW] * 4)
    (damaged,) = tmp_path.rglob(file_of(*NAMES[:4]))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    foreign = damaged.with_name("notes.npz")
    foreign.write_bytes(b"no readings")
    lines: list[str] = []
    store = open_store(tmp_path, lines)
    assert store.read(NAMES) is None
    assert [store.read_one(name) is None for name in NAMES] == [True] * 4 + [False] * 4
    assert len(lines) == 1
    # The next run has other batches, so it does not write a file of the same name.
    store.write(NAMES[2:4], [ROW] * 2)
    store.write(NAMES[:2], [ROW] * 2)
    lines.clear()
    assert open_store(tmp_path, lines).read(NAMES) is not None
    assert lines == []
    assert foreign.read_bytes() == b"no readings"


def test_readings_of_an_earlier_format_are_neither_read_nor_deleted(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(reading_cache, "FORMAT", reading_cache.FORMAT - 1)
        open_store(tmp_path).write(["one"], [ROW])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    assert len(before) == 2
    lines: list[str] = []
    store = open_store(tmp_path, lines)
    assert store.read(["one"]) is None
    store.write(["one"], [ROW])
    assert (reads, lines) == ([], [])
    assert {path: path.read_bytes() for path in before} == before
    assert len([*tmp_path.rglob("*.*")]) == 4


def test_of_many_damaged_files_five_are_named_and_all_counted(tmp_path: Path) -> None:
    names = [f"r{number}" for number in range(8)]
    for name in names:
        open_store(tmp_path).write([name], [ROW])
    for path in tmp_path.rglob("*.npz"):
        path.write_bytes(b"")
    lines: list[str] = []
    store = open_store(tmp_path, lines)
    assert store.read(names) is None
    store.close()
    assert [line.split()[0] for line in lines] == ["the"] * 5 + ["8"]
    lines.clear()
    open_store(tmp_path, lines).close()
    assert lines == []


def test_partial_readings_of_dead_processes_are_removed_and_of_running_ones_kept(reading: Path) -> None:
    dead, running = (reading.with_name(f".{tag}.7.phase-part") for tag in (dead_tag(), owner_tag()))
    for path in (dead, running, reading.with_name(".hidden")):
        path.write_bytes(b"half")
    os.utime(running, (0, 0))
    open_store(cache_directory(reading)).write(["two"], [ROW])
    assert sorted(path.name for path in reading.parent.iterdir()) == sorted(
        [".hidden", running.name, "key.json", file_of("one"), file_of("two")]
    )


def test_a_full_disk_is_reported_once_and_again_at_the_end(reading: Path) -> None:
    lines: list[str] = []
    store = open_store(cache_directory(reading), lines)
    with full_disk():
        store.write(["two", "three"], [ROW, ROW])
        store.write(["four"], [ROW])
    assert sorted(path.name for path in reading.parent.iterdir()) == sorted(["key.json", file_of("one")])
    # The disk has space again, so new readings are cached.
    store.write(["five"], [ROW])
    assert is_stored_row(store.read_one("five"))
    assert is_stored_row(open_store(cache_directory(reading)).read_one("five"))
    store.close()
    assert len(lines) == 2
    assert lines[0].startswith(
        f"readings are no longer cached in {reading.parent} (No space left on device): the measurement"
    )
    assert lines[1].startswith(f"3 readings were measured and not cached in {reading.parent} (No space left on device)")


def test_a_read_only_cache_is_read_and_reported_once(reading: Path) -> None:
    lines: list[str] = []
    with read_only_disk():
        store = open_store(cache_directory(reading), lines)
        assert is_stored_row(store.read_one("one"))
        assert lines == []
        store.write(["two", "three"], [ROW, ROW])
        empty_store = open_store(cache_directory(reading), lines, {"weights": "others"})
        empty_store.write(["two"], [ROW])
    line = (
        f"the cache {cache_directory(reading)} cannot be written (Read-only file system): its readings are used, new "
        "ones are not cached; choose another --phase-cache to cache them"
    )
    assert lines == [line, line]


def test_a_read_only_cache_is_accepted_if_it_holds_readings(reading: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with read_only_disk():
        assert cache_problem(cache_directory(reading)) == ""
        assert cache_problem(tmp_path / "empty") == cache_problem(tmp_path / "none") == "Read-only file system"
    assert cache_problem(reading) == "File exists"
    assert cache_problem(tmp_path / "none") == ""
    assert [path.name for path in cache_directory(reading).iterdir()] == ["readings"]


def test_a_cache_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    with (
        read_only_disk(),
        pytest.raises(ReadingCacheError, match=r"cannot be cached in .* \(Read-only file system\); choose another"),
    ):
        open_store(tmp_path / "none").write(["one"], [ROW])


def start_process(role: str, cache: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "harness.tests.support.one_reading", role, str(cache)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def output_lines(process: subprocess.Popen[str]) -> list[str]:
    out, problem = process.communicate(timeout=300)
    assert process.returncode == 0, problem
    return out.strip().splitlines()


@pytest.mark.slow
def test_two_processes_share_a_cache_and_a_refused_write_is_reported(tmp_path: Path) -> None:
    both = [start_process("hammer", tmp_path / "cache") for _ in range(2)]
    last = start_process("refused", tmp_path / "small")
    assert [output_lines(process) for process in both] == [[], []]
    assert {path.name for path in (tmp_path / "cache").rglob("*.*")} == {*map(file_of, NAMES), "key.json"}
    first, end = output_lines(last)
    assert first.startswith("readings are no longer cached in")
    assert "(File too large)" in first
    assert end.startswith("8 readings were measured and not cached in")
    assert [path.name for path in (tmp_path / "small").rglob("*.*")] == ["key.json"]
