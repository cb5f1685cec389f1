"""Baselines and records with flipped bits, and on full disks."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.baselines.store import BaselineError, read_baseline
from harness.baselines.stored_files import read_json, write_files
from harness.storage.files import unwritable_reason, write_together
from harness.tests.support.case_runs import REGRESSION, ROOT, Cases
from harness.tests.support.damaged import damaged_copies, replace_file
from harness.tests.support.disks import full_disk

SHIPPED = ROOT / "baselines" / "scenes-llava" / "scenes.json"


def test_concurrent_checks_that_a_directory_is_writable_do_not_interfere(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(unwritable_reason, [tmp_path] * 400)) == {""}
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A copy of a shipped baseline."""
    for suffix in (".json", ".npz"):
        shutil.copy(SHIPPED.with_suffix(suffix), tmp_path)
    return tmp_path / SHIPPED.name


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_a_baseline_with_any_flipped_bit_is_refused_by_name(stored: Path, suffix: str) -> None:
    expected = read_json(SHIPPED)
    path = stored.with_suffix(suffix)
    messages: list[str] = []
    for damaged in damaged_copies(path.read_bytes(), 60, 20):
        replace_file(path, damaged)
        try:
            if suffix == ".npz":
                read_baseline(stored)
            assert read_json(stored) == expected
        except BaselineError as error:
            messages.append(str(error))
    assert all(str(path) in line and "restore it from version control, or remove scenes" in line for line in messages)
    # A changed whitespace character leaves the JSON content unchanged.
    assert len(messages) == 81 if suffix == ".npz" else len(messages) > 70


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


@pytest.mark.slow
def test_a_full_disk_at_the_end_fails_the_run_and_leaves_no_partial_record(recorded: Cases) -> None:
    home = recorded.baselines.parent
    before = {path.name for path in home.iterdir()}
    with full_disk():
        result = recorded.run(*REGRESSION, "-k", "test_reproduces", "--phase-json", "run.json")
    result.assert_outcomes(passed=5)
    text = " ".join(result.stdout.str().split())
    assert f"PHASES FAILED: --phase-json {home / 'run.json'} could not be written: No space left on device" in text
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    # pytest-benchmark creates a directory, and matplotlib if this process has not imported it before.
    assert {path.name for path in home.iterdir()} - before <= {".benchmarks", ".config"}
