"""The JSON of a baseline names its arrays; both are read consistently, and no other files are removed."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.analysis.calibration import Calibration, Noise, RunNoise
from harness.baselines import stored_files
from harness.baselines.field_changes import write_configuration, write_timing
from harness.baselines.store import read_baseline, write_baseline
from harness.baselines.stored_files import (
    BaselineError,
    BaselineExistsError,
    arrays_path,
    read_files,
    read_json,
    remove_leftovers,
    write_files,
)
from harness.judgement.phases import phases_of
from harness.profile.measures import MEASURES
from harness.profile.profile import Profile
from harness.storage.directory_lock import LockedError
from harness.tests.support.case_runs import REGRESSION, ROOT, Cases, find_arrays
from harness.tests.support.dead import dead_tag
from harness.tests.support.synthetic_profiles import synthetic_profile

SHIPPED = sorted((ROOT / "baselines").glob("*/*.json"))


@pytest.fixture(scope="module")
def made() -> Profile:
    return synthetic_profile()


@pytest.fixture(scope="module")
def other() -> Profile:
    return synthetic_profile(1)


def written(root: Path, profile: Profile, **options: Any) -> Path:
    return write_baseline(root, profile, {}, phases_of(profile), **options)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def rename_like_earlier_versions(path: Path) -> None:
    """Give the arrays of a baseline the name of earlier versions, which the JSON does not contain."""
    content = read_json(path)
    arrays_path(path, content).rename(path.with_suffix(".npz"))
    write_files(path, {name: value for name, value in content.items() if name != "arrays"})


def test_the_shipped_baselines_are_read_with_or_without_a_name_of_arrays() -> None:
    assert len(SHIPPED) >= 4
    for path in SHIPPED:
        assert find_arrays(path) == path.with_suffix(".npz") or find_arrays(path).name == read_json(path)["arrays"]
        assert read_baseline(path).profile.n


def test_arrays_are_named_by_content_and_previous_arrays_are_removed(
    tmp_path: Path, made: Profile, other: Profile
) -> None:
    path = written(tmp_path, made)
    first = find_arrays(path).name
    assert first == f"curves.{read_json(path)['arrays_sha256'][:12]}.npz"
    rename_like_earlier_versions(path)
    assert names(path.parent) == {"curves.json", "curves.npz"}
    assert np.array_equal(read_baseline(path).profile["inter"], made["inter"])
    written(tmp_path, other)
    assert names(path.parent) == {"curves.json", find_arrays(path).name}
    assert find_arrays(path).name != first
    assert np.array_equal(read_baseline(path).profile["inter"], other["inter"])


@pytest.mark.parametrize(
    "name",
    [
        "../curves.npz",
        "..\\curves.npz",
        "/etc/curves.npz",
        "C:curves.npz",
        "deep/curves.npz",
        "curves.json",
        ".",
        "..",
        "",
        "curves.npz\0",
        "\x1b[2Jcurves.npz",
        7,
        None,
        ["curves.npz"],
        {"curves": "npz"},
    ],
)
def test_the_arrays_are_a_file_beside_the_json(name: Any, tmp_path: Path, made: Profile) -> None:
    path = written(tmp_path, made)
    shutil.copy(find_arrays(path), tmp_path / "curves.npz")
    write_files(path, read_json(path) | {"arrays": name})
    with pytest.raises(BaselineError, match=r"for its arrays, which is no name of a \.npz file beside it; restore it"):
        read_baseline(path)


@pytest.mark.parametrize("name", ["x" * 300 + ".npz", "missing.npz", "folder.npz", "pipe.npz"])
def test_arrays_that_are_no_regular_file_are_refused(name: str, tmp_path: Path, made: Profile) -> None:
    path = written(tmp_path, made)
    (path.parent / "folder.npz").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(path.parent / "pipe.npz")
    write_files(path, read_json(path) | {"arrays": name})
    with pytest.raises(BaselineError, match=r"the arrays .*npz of .*curves\.json cannot be read: .*; restore it"):
        read_baseline(path)


def test_a_reader_reads_both_files_again_after_a_concurrent_update(
    tmp_path: Path, made: Profile, other: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, made)
    profiles = [made, other] * 4

    def update_concurrently(path: Path, content: Any) -> bytes:
        if profiles:
            written(tmp_path, profiles.pop())
        return read_arrays(path, content)

    read_arrays = stored_files._read_arrays
    monkeypatch.setattr(stored_files, "_read_arrays", update_concurrently)
    content, _ = read_files(path)
    assert content == read_json(path)
    assert not profiles
    # The number of attempts is limited.
    profiles += [made, other] * 10
    with pytest.raises(BaselineError, match="cannot be read: No such file"):
        read_files(path)


def test_a_reader_tries_again_if_a_baseline_was_replaced_and_restored(
    tmp_path: Path, made: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, answers = written(tmp_path, made), [BaselineError("the arrays cannot be read: No such file")]

    def missing_once(path: Path, content: Any) -> bytes:
        if answers:
            raise answers.pop()
        return read_arrays(path, content)

    read_arrays = stored_files._read_arrays
    monkeypatch.setattr(stored_files, "_read_arrays", missing_once)
    assert read_files(path)[0] == read_json(path)


def test_only_arrays_of_the_baseline_that_no_json_names_are_removed(
    tmp_path: Path, made: Profile, other: Profile
) -> None:
    path = written(tmp_path, made)
    folder = path.parent
    shutil.copy(path, folder / "copy.json")
    copied = find_arrays(path).name
    stay = {copied, "copy.json", "curves.mine.npz", "curves2.0123456789ab.npz", "notes.npz", "curves.0123456789abc.npz"}
    stay |= {"curves.0123456789ab.txt", "curves.0123456789AB.npz", "1curves.0123456789ab.npz", "notes.json"}
    for name in stay - names(folder):
        (folder / name).write_text("{}")
    (folder / "curves.0123456789ab.npz").write_bytes(b"of a killed update")
    written(tmp_path, other)
    assert names(folder) == {*stay, "curves.json", find_arrays(path).name}
    # An unreadable JSON may name any of them.
    (folder / "curves.0123456789ab.npz").write_bytes(b"of a killed update")
    (folder / "half.json").write_text("{")
    written(tmp_path, made)
    assert "curves.0123456789ab.npz" in names(folder)


def test_nothing_is_removed_without_an_exclusive_lock(
    tmp_path: Path, made: Profile, other: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, made)
    first = find_arrays(path).name
    fcntl = pytest.importorskip("fcntl", reason="locks are of another kind here")

    def refused(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refused)
    written(tmp_path, other)
    assert names(path.parent) == {"curves.json", first, find_arrays(path).name}


def test_each_pair_has_its_own_arrays(tmp_path: Path, made: Profile, other: Profile) -> None:
    """Datasets whose names begin alike, and another dtype beside the first."""
    profiles = [made, dataclasses.replace(other, dataset="curves-more")]
    half = dataclasses.replace(made.environment, dtype="bfloat16")
    profiles.append(dataclasses.replace(synthetic_profile(2), environment=half))
    for _ in range(2):
        paths = [written(tmp_path, profile) for profile in profiles]
    assert [path.name for path in paths] == ["curves.json", "curves-more.json", "curves.cpu-bfloat16.json"]
    assert names(paths[0].parent) == {file.name for path in paths for file in (path, find_arrays(path))}
    for path, profile in zip(paths, profiles, strict=True):
        assert np.array_equal(read_baseline(path).profile["inter"], profile["inter"])


def noisy() -> Calibration:
    return Calibration({"bfloat16": RunNoise("bfloat16", dict.fromkeys(MEASURES, Noise(1e-3, 2e-3, 1.0)))})


def test_an_update_keeps_ratios_and_calibration_that_another_run_added(
    tmp_path: Path, made: Profile, other: Profile
) -> None:
    read = read_baseline(written(tmp_path, made))
    write_timing(read, "one", 1.04)
    written(tmp_path, made, calibration=noisy(), previous=read)
    write_timing(read, "two", 1.05)
    again = read_baseline(written(tmp_path, dataclasses.replace(made, declared={"prompt": "other"}), previous=read))
    assert again.timing == {"one": 1.04, "two": 1.05}
    assert again.calibration.record() == noisy().record()
    # The calibration of other weights does not apply.
    changed = dataclasses.replace(other, weights="other")
    assert read_baseline(written(tmp_path, changed, previous=read)).calibration.record() == Calibration().record()


def test_a_first_recording_does_not_overwrite_another(tmp_path: Path, made: Profile, other: Profile) -> None:
    path = written(tmp_path, made, first=True)
    before = path.read_bytes()
    with pytest.raises(BaselineExistsError, match="another run has recorded a baseline of made-curves"):
        written(tmp_path, other, first=True)
    assert path.read_bytes() == before


def test_a_new_configuration_leaves_the_arrays_as_they_are(tmp_path: Path, made: Profile) -> None:
    path = written(tmp_path, made)
    rename_like_earlier_versions(path)
    before = names(path.parent)
    described = dataclasses.replace(made, configuration={"rope_theta": 10000})
    assert write_configuration(read_baseline(path), described).profile.configuration == {"rope_theta": 10000}
    assert names(path.parent) == before


def test_a_failed_write_raises_and_changes_nothing(
    tmp_path: Path, made: Profile, other: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, made)
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}

    def busy(_: Path) -> None:
        raise LockedError("held")

    with monkeypatch.context() as patch:
        patch.setattr(stored_files, "locked", busy)
        remove_leftovers(path)
        with pytest.raises(LockedError, match="held"):
            written(tmp_path, other)
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


def test_a_lock_that_cannot_be_acquired_is_named(tmp_path: Path, made: Profile, other: Profile) -> None:
    path = written(tmp_path, made)
    before = path.read_bytes()
    path.with_name(".phase-lock").mkdir()
    with pytest.raises(BaselineError, match=r"the lock .*\.phase-lock cannot be acquired: .*; remove it if no run"):
        written(tmp_path, other)
    assert path.read_bytes() == before


@pytest.mark.slow
def test_an_update_without_changes_removes_remains_of_a_killed_one(recorded: Cases) -> None:
    folder = recorded.baselines / "tiny-llava"
    before = recorded.files()
    for name in ("tiny.0123456789ab.npz", f".{dead_tag()}.0.phase-part", ".phase-lock"):
        (folder / name).write_bytes(b"half")
    result = recorded.run(*REGRESSION, "-k", "test_reproduces")
    assert result.ret == pytest.ExitCode.OK
    assert len(recorded.files()) == len(before) + 3
    result = recorded.run(*REGRESSION, "-k", "test_reproduces", "--phase-update")
    result.stdout.fnmatch_lines(["baselines: 1 matched, 0 changed, 0 new, 0 unused"])
    assert recorded.files() == before


@pytest.mark.skipif(os.name != "posix", reason="permissions are of another kind here")
def test_a_baseline_has_the_permissions_of_the_umask_and_keeps_its_own(
    tmp_path: Path, made: Profile, other: Profile
) -> None:
    before = os.umask(0o027)
    try:
        path = written(tmp_path, made)
        assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o640}
        path.chmod(0o664)
        written(tmp_path, other)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o664
    assert json.loads(path.read_text())["arrays"] == find_arrays(path).name
