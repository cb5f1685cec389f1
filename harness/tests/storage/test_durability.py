"""What long runs meet: flipped bits, torn files, full disks, caches that cannot be written, two runs at once."""

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
def kept(tmp_path: Path) -> Path:
    """The only reading of a cache."""
    open_store(tmp_path / "cache").write(["one"], [ROW])
    (path,) = tmp_path.rglob("one.npz")
    return path


def cache_of(path: Path) -> Path:
    return path.parents[2]


def test_a_reading_is_read_back_exactly_and_its_key_is_stored_beside_it(kept: Path) -> None:
    told: list[str] = []
    assert is_stored_row(open_store(cache_of(kept), told).read_one("one"))
    assert open_store(cache_of(kept), told).read(["one", "two"]) is None
    assert told == []
    assert json.loads((kept.parent / "key.json").read_text()) == {"format": 1, **KEY}
    assert sorted(path.name for path in kept.parent.iterdir()) == ["key.json", "one.npz"]
    with np.load(kept, allow_pickle=False) as plain:
        assert plain["hits"].tolist() == ROW["hits"].tolist()


def damages(content: bytes, flips: int, cuts: int) -> Iterator[bytes]:
    """A bit flipped at `flips` places, the file cut off at `cuts`, a byte too many; every place of a short file."""
    rng = np.random.default_rng(0)
    size = len(content)
    for place in range(size) if flips >= size else rng.integers(size, size=flips):
        yield content[:place] + bytes([content[place] ^ 1 << int(rng.integers(8))]) + content[place + 1 :]
    for length in range(size) if cuts >= size else rng.integers(size, size=cuts):
        yield content[:length]
    yield content + b"\0"


def put(path: Path, content: bytes) -> None:
    """A new file: some file systems wait for the disk where an old one is cut short and written again."""
    path.unlink()
    path.write_bytes(content)


def test_a_reading_with_any_flipped_bit_is_named_and_not_used(kept: Path) -> None:
    content = kept.read_bytes()
    tried = 0
    for damaged in damages(content, len(content), 300):
        put(kept, damaged)
        told: list[str] = []
        store = open_store(cache_of(kept), told)
        assert store.read(["one"]) is None
        assert told == [f"the cached reading {kept} is damaged (its checksum does not match): it is measured again"]
        tried += 1
    assert tried == len(content) + 301
    assert store.read_one("one") is None
    assert len(told) == 1
    store.write(["one"], [ROW])
    assert kept.read_bytes() == content


def test_a_reading_under_the_name_or_key_of_another_is_not_used(kept: Path) -> None:
    shutil.copy(kept, kept.with_name("two.npz"))
    told: list[str] = []
    assert open_store(cache_of(kept), told).read_one("two") is None
    other = {**KEY, "weights": "4567"}
    open_store(cache_of(kept), told, other).write(["two"], [ROW])
    (elsewhere,) = set(cache_of(kept).rglob("two.npz")) - {kept.with_name("two.npz")}
    shutil.copy(kept, elsewhere.with_name("one.npz"))
    assert open_store(cache_of(kept), told, other).read_one("one") is None
    assert [line.split(" is damaged")[0].split()[-1] for line in told] == [
        str(kept.with_name("two.npz")),
        str(elsewhere.with_name("one.npz")),
    ]


def test_of_many_damaged_readings_five_are_named_and_all_counted(tmp_path: Path) -> None:
    names = [f"r{number}" for number in range(8)]
    open_store(tmp_path).write(names, [ROW] * 8)
    for path in tmp_path.rglob("r*.npz"):
        path.write_bytes(b"")
    told: list[str] = []
    store = open_store(tmp_path, told)
    assert store.read(names) is None
    store.close()
    assert [line.split()[0] for line in told] == ["the"] * 5 + ["8"]
    told.clear()
    open_store(tmp_path, told).close()
    assert told == []


def test_partial_readings_of_dead_processes_are_removed_and_of_running_ones_kept(kept: Path) -> None:
    dead, running = (kept.with_name(f".{tag}.7.phase-part") for tag in (dead_tag(), owner_tag()))
    for path in (dead, running, kept.with_name(".hidden")):
        path.write_bytes(b"half")
    os.utime(running, (0, 0))
    open_store(cache_of(kept)).write(["two"], [ROW])
    assert sorted(path.name for path in kept.parent.iterdir()) == sorted(
        [".hidden", running.name, "key.json", "one.npz", "two.npz"]
    )


def test_a_full_disk_is_reported_once_and_again_at_the_end(kept: Path) -> None:
    told: list[str] = []
    store = open_store(cache_of(kept), told)
    with full_disk():
        store.write(["two", "three"], [ROW, ROW])
        store.write(["four"], [ROW])
    assert sorted(path.name for path in kept.parent.iterdir()) == ["key.json", "one.npz"]
    # Room was made: what comes now is kept again.
    store.write(["five"], [ROW])
    assert is_stored_row(store.read_one("five"))
    store.close()
    assert len(told) == 2
    assert told[0].startswith(
        f"readings are no longer cached in {kept.parent} (No space left on device): the measurement"
    )
    assert told[1].startswith(f"3 readings were measured and not cached in {kept.parent} (No space left on device)")


def test_a_read_only_cache_is_read_and_reported_once(kept: Path) -> None:
    told: list[str] = []
    with read_only_disk():
        store = open_store(cache_of(kept), told)
        assert is_stored_row(store.read_one("one"))
        assert told == []
        store.write(["two", "three"], [ROW, ROW])
        nothing_there = open_store(cache_of(kept), told, {"weights": "others"})
        nothing_there.write(["two"], [ROW])
    line = (
        f"the cache {cache_of(kept)} cannot be written (Read-only file system): its readings are used, new "
        "ones are not cached; choose another --phase-cache to cache them"
    )
    assert told == [line, line]


def test_a_read_only_cache_is_accepted_if_it_holds_readings(kept: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with read_only_disk():
        assert cache_problem(cache_of(kept)) == ""
        assert cache_problem(tmp_path / "empty") == cache_problem(tmp_path / "none") == "Read-only file system"
    assert cache_problem(kept) == "File exists"
    assert cache_problem(tmp_path / "none") == ""
    assert [path.name for path in cache_of(kept).iterdir()] == ["readings"]


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


def other_process(role: str, cache: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "harness.tests.support.one_reading", role, str(cache)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str]) -> list[str]:
    out, problem = process.communicate(timeout=300)
    assert process.returncode == 0, problem
    return out.strip().splitlines()


def test_two_processes_share_a_cache_and_a_refused_write_is_reported(tmp_path: Path) -> None:
    both = [other_process("hammer", tmp_path / "cache") for _ in range(2)]
    last = other_process("refused", tmp_path / "small")
    assert [finished(process) for process in both] == [[], []]
    assert sorted(path.name for path in (tmp_path / "cache").rglob("*.*")) == [*(f"{n}.npz" for n in NAMES), "key.json"]
    first, end = finished(last)
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
    whole = read_json(SHIPPED)
    path = stored.with_suffix(suffix)
    refused: list[str] = []
    for damaged in damages(path.read_bytes(), 120, 40):
        put(path, damaged)
        try:
            if suffix == ".npz":
                read_baseline(stored)
            assert read_json(stored) == whole
        except BaselineError as error:
            refused.append(str(error))
    assert all(str(path) in line and "restore it from version control, or remove scenes" in line for line in refused)
    # A blank that became another kind of blank says the same.
    assert len(refused) == 161 if suffix == ".npz" else len(refused) > 140


def test_an_intended_edit_is_accepted_with_the_checksum_from_the_message(stored: Path) -> None:
    text = stored.read_text()
    content = json.loads(text)
    margin = content["margins"]["inter"]
    margin |= {"value": 0.02, "reason": "as we like it"}
    stored.write_text(json.dumps(content))
    with pytest.raises(
        BaselineError, match=r"it is damaged or edited; restore it .*; if the content is intended"
    ) as caught:
        read_baseline(stored)
    wanted = str(caught.value).split('put "checksum": "')[1].split('"')[0]
    stored.write_text(json.dumps(content | {"checksum": wanted}, indent=4))
    assert read_baseline(stored).margins["inter"] == 0.02
    del content["checksum"]
    stored.write_text(json.dumps(content))
    with pytest.raises(BaselineError, match=f'has no checksum; .*put "checksum": "{wanted}" into it'):
        read_baseline(stored)


def test_a_full_disk_leaves_a_baseline_and_its_arrays_unchanged(stored: Path) -> None:
    before = {path.name: path.read_bytes() for path in stored.parent.iterdir()}
    with full_disk(), pytest.raises(BaselineError, match="cannot be written: No space left on device; make room"):
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
    result.stdout.fnmatch_lines(["phase: --phase-json *run.json could not be written: No space left on device"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    # pytest-benchmark makes itself a directory.
    assert {path.name for path in home.iterdir()} - before <= {".benchmarks"}
