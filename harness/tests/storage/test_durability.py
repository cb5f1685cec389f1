"""Flipped bits, truncated files, full disks, read-only caches and concurrent runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from harness.baselines.store import BaselineError, read_baseline
from harness.baselines.stored_files import read_json, write_files
from harness.measurement.reading_cache import ReadingCacheError, cache_problem
from harness.storage.dead_processes import owner_tag
from harness.storage.files import unwritable_reason, write_together
from harness.tests.support.case_runs import REGRESSION, ROOT, Cases
from harness.tests.support.dead import dead_tag
from harness.tests.support.disks import full_disk, read_only_disk
from harness.tests.support.one_reading import KEY, NAMES, ROW, is_stored_row, open_store


@pytest.fixture
def reading(tmp_path: Path) -> Path:
    """Path of the only reading in a cache."""
    open_store(tmp_path / "cache").write(["one"], [ROW])
    (path,) = tmp_path.rglob("one.npz")
    return path


def cache_directory(path: Path) -> Path:
    return path.parents[2]


def test_a_reading_is_read_back_exactly_and_its_key_is_stored_beside_it(reading: Path) -> None:
    lines: list[str] = []
    assert is_stored_row(open_store(cache_directory(reading), lines).read_one("one"))
    assert open_store(cache_directory(reading), lines).read(["one", "two"]) is None
    assert lines == []
    assert json.loads((reading.parent / "key.json").read_text()) == {"format": 1, **KEY}
    assert sorted(path.name for path in reading.parent.iterdir()) == ["key.json", "one.npz"]
    with np.load(reading, allow_pickle=False) as plain:
        assert plain["hits"].tolist() == ROW["hits"].tolist()


def damaged_copies(content: bytes, flips: int, cuts: int) -> Iterator[bytes]:
    """Yield copies with one flipped bit, truncated copies and one with an extra byte.

    Args:
        content: the original bytes.
        flips: number of random positions of a flipped bit; every position if the file is shorter.
        cuts: number of random lengths of a truncated copy; every length if the file is shorter.
    """
    rng = np.random.default_rng(0)
    size = len(content)
    for position in range(size) if flips >= size else rng.integers(size, size=flips):
        yield content[:position] + bytes([content[position] ^ 1 << int(rng.integers(8))]) + content[position + 1 :]
    for length in range(size) if cuts >= size else rng.integers(size, size=cuts):
        yield content[:length]
    yield content + b"\0"


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file by a new one, because some file systems wait for the disk when a file is rewritten."""
    path.unlink()
    path.write_bytes(content)


def test_a_reading_with_any_flipped_bit_is_named_and_not_used(reading: Path) -> None:
    content = reading.read_bytes()
    count = 0
    for damaged in damaged_copies(content, len(content), 300):
        replace_file(reading, damaged)
        lines: list[str] = []
        store = open_store(cache_directory(reading), lines)
        assert store.read(["one"]) is None
        assert lines == [f"the cached reading {reading} is damaged (its checksum does not match): it is measured again"]
        count += 1
    assert count == len(content) + 301
    assert store.read_one("one") is None
    assert len(lines) == 1
    store.write(["one"], [ROW])
    assert reading.read_bytes() == content


def test_a_reading_under_the_name_or_key_of_another_is_not_used(reading: Path) -> None:
    shutil.copy(reading, reading.with_name("two.npz"))
    lines: list[str] = []
    assert open_store(cache_directory(reading), lines).read_one("two") is None
    other = {**KEY, "weights": "4567"}
    open_store(cache_directory(reading), lines, other).write(["two"], [ROW])
    (elsewhere,) = set(cache_directory(reading).rglob("two.npz")) - {reading.with_name("two.npz")}
    shutil.copy(reading, elsewhere.with_name("one.npz"))
    assert open_store(cache_directory(reading), lines, other).read_one("one") is None
    assert [line.split(" is damaged")[0].split()[-1] for line in lines] == [
        str(reading.with_name("two.npz")),
        str(elsewhere.with_name("one.npz")),
    ]


def test_of_many_damaged_readings_five_are_named_and_all_counted(tmp_path: Path) -> None:
    names = [f"r{number}" for number in range(8)]
    open_store(tmp_path).write(names, [ROW] * 8)
    for path in tmp_path.rglob("r*.npz"):
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
        [".hidden", running.name, "key.json", "one.npz", "two.npz"]
    )


def test_a_full_disk_is_reported_once_and_again_at_the_end(reading: Path) -> None:
    lines: list[str] = []
    store = open_store(cache_directory(reading), lines)
    with full_disk():
        store.write(["two", "three"], [ROW, ROW])
        store.write(["four"], [ROW])
    assert sorted(path.name for path in reading.parent.iterdir()) == ["key.json", "one.npz"]
    # The disk has space again, so new readings are cached.
    store.write(["five"], [ROW])
    assert is_stored_row(store.read_one("five"))
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


def test_concurrent_checks_that_a_directory_is_writable_do_not_interfere(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(unwritable_reason, [tmp_path] * 400)) == {""}
    assert list(tmp_path.iterdir()) == []


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


def test_two_processes_share_a_cache_and_a_refused_write_is_reported(tmp_path: Path) -> None:
    both = [start_process("hammer", tmp_path / "cache") for _ in range(2)]
    last = start_process("refused", tmp_path / "small")
    assert [output_lines(process) for process in both] == [[], []]
    assert sorted(path.name for path in (tmp_path / "cache").rglob("*.*")) == [*(f"{n}.npz" for n in NAMES), "key.json"]
    first, end = output_lines(last)
    assert first.startswith("readings are no longer cached in")
    assert "(File too large)" in first
    assert end.startswith("8 readings were measured and not cached in")
    assert [path.name for path in (tmp_path / "small").rglob("*.*")] == ["key.json"]


SHIPPED = ROOT / "baselines" / "scenes-llava" / "scenes.json"


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A copy of a shipped baseline."""
    for suffix in (".json", ".npz"):
        shutil.copy(SHIPPED.with_suffix(suffix), tmp_path)
    return tmp_path / SHIPPED.name


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_a_baseline_with_any_flipped_bit_is_refused_by_name(stored: Path, suffix: str) -> None:
    expected = read_json(SHIPPED)
    path = stored.with_suffix(suffix)
    messages: list[str] = []
    for damaged in damaged_copies(path.read_bytes(), 120, 40):
        replace_file(path, damaged)
        try:
            if suffix == ".npz":
                read_baseline(stored)
            assert read_json(stored) == expected
        except BaselineError as error:
            messages.append(str(error))
    assert all(str(path) in line and "restore it from version control, or remove scenes" in line for line in messages)
    # A changed whitespace character leaves the JSON content unchanged.
    assert len(messages) == 161 if suffix == ".npz" else len(messages) > 140


def test_an_intended_edit_is_accepted_with_the_checksum_from_the_message(stored: Path) -> None:
    text = stored.read_text()
    content = json.loads(text)
    margin = content["margins"]["inter"]
    margin |= {"value": 0.02, "reason": "intended"}
    stored.write_text(json.dumps(content))
    with pytest.raises(
        BaselineError, match=r"it is damaged or edited; restore it .*; if the content is intended"
    ) as caught:
        read_baseline(stored)
    checksum = str(caught.value).split('put "checksum": "')[1].split('"')[0]
    stored.write_text(json.dumps(content | {"checksum": checksum}, indent=4))
    assert read_baseline(stored).margins["inter"] == 0.02
    del content["checksum"]
    stored.write_text(json.dumps(content))
    with pytest.raises(BaselineError, match=f'has no checksum; .*put "checksum": "{checksum}" into it'):
        read_baseline(stored)


def test_a_full_disk_leaves_a_baseline_and_its_arrays_unchanged(stored: Path) -> None:
    before = {path.name: path.read_bytes() for path in stored.parent.iterdir()}
    with full_disk(), pytest.raises(BaselineError, match="cannot be written: No space left on device; free disk space"):
        write_files(stored, {**read_json(stored), "model": "other"}, b"other arrays")
    assert {path.name: path.read_bytes() for path in stored.parent.iterdir()} == before


def test_files_written_together_replace_the_old_ones_only_after_all_are_written(tmp_path: Path) -> None:
    write_together({tmp_path / "a": b"old", tmp_path / "b": b"old"})
    (tmp_path / "c").write_bytes(b"a file where a directory should be")
    with pytest.raises(OSError, match="exists"):
        write_together({tmp_path / "a": b"new", tmp_path / "c" / "d": b"new"})
    assert sorted((path.name, path.read_bytes()[:3]) for path in tmp_path.iterdir()) == [
        ("a", b"old"),
        ("b", b"old"),
        ("c", b"a f"),
    ]


def test_a_full_disk_at_the_end_fails_the_run_and_leaves_no_partial_record(recorded: Cases) -> None:
    home = recorded.baselines.parent
    before = {path.name for path in home.iterdir()}
    with full_disk():
        result = recorded.run(*REGRESSION, "-k", "test_reproduces", "--phase-json", "run.json")
    result.assert_outcomes(passed=4)
    text = " ".join(result.stdout.str().split())
    assert f"PHASES FAILED: --phase-json {home / 'run.json'} could not be written: No space left on device" in text
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    # pytest-benchmark creates a directory.
    assert {path.name for path in home.iterdir()} - before <= {".benchmarks"}
