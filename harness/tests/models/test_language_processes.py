"""Several processes make the language model of one cache at once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from harness.models.bundled import language
from harness.models.bundled.language import language_directory
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


def test_the_second_of_two_processes_uses_the_files_of_the_first(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"

    def convert_after_another_process(work: Path, ready: Path) -> None:
        monkeypatch.setattr(language, "_convert", copy_gguf)
        language_directory(cache)
        (cache / WEIGHTS_DIRECTORY / "first").touch()
        copy_gguf(work, ready)

    monkeypatch.setattr(language, "_convert", convert_after_another_process)
    assert (language_directory(cache) / "first").exists()
    assert find_leftovers(cache) == []


def test_the_second_process_that_finds_altered_weights_uses_the_rebuilt_files(
    cached_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip_bit(cached_weights)
    convert = language._convert

    def convert_after_another_process(work: Path, ready: Path) -> None:
        monkeypatch.setattr(language, "_convert", convert)
        load_state(cached_weights)
        (cached_weights.parent / "first").touch()
        convert(work, ready)

    monkeypatch.setattr(language, "_convert", convert_after_another_process)
    load_state(cached_weights)
    assert (cached_weights.parent / "first").exists()
    assert find_leftovers(cached_weights.parents[2]) == []


@pytest.mark.parametrize("removed", [False, True], ids=["made again", "not yet in place"])
def test_weights_that_another_process_rebuilds_while_they_are_read_are_used(
    cached_weights: Path, monkeypatch: pytest.MonkeyPatch, removed: bool
) -> None:
    load, home = safetensors.torch.load_file, cached_weights.parent

    def rebuild_while_loading(path: Path) -> dict[str, torch.Tensor]:
        monkeypatch.setattr("safetensors.torch.load_file", load)
        home.rename(home.with_name("before"))
        if not removed:
            shutil.copytree(home.with_name("before"), home)
        return load(home.with_name("before") / path.name)

    monkeypatch.setattr("safetensors.torch.load_file", rebuild_while_loading)
    state, lines = load_state(cached_weights)
    assert all(torch.equal(state[name], TENSORS[name]) for name in TENSORS)
    assert lines == []
