"""Tiny checkpoint directories, saved once and copied, and functions that modify them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.tests.support.tiny import tiny_vlm

SHARDED = "30KB"


@pytest.fixture(scope="session")
def checkpoint_templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the checkpoint `whole` in one file and `sharded` in several."""
    directory = tmp_path_factory.mktemp("checkpoints")
    vlm = tiny_vlm()
    for name, options in (("whole", {}), ("sharded", {"max_shard_size": SHARDED})):
        vlm.model.save_pretrained(directory / name, **options)
        vlm.processor.save_pretrained(directory / name)
    return directory


@pytest.fixture
def checkpoint(checkpoint_templates: Path, tmp_path: Path) -> Path:
    """A copy of a tiny LLaVA of 4 layers with its weights in one file."""
    return Path(shutil.copytree(checkpoint_templates / "whole", tmp_path / "mine"))


@pytest.fixture
def sharded_checkpoint(checkpoint_templates: Path, tmp_path: Path) -> Path:
    """A copy of the same model in shards with an index."""
    return Path(shutil.copytree(checkpoint_templates / "sharded", tmp_path / "shards"))


def change_settings(path: Path, alter: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite a JSON file after `alter` changed its contents in place."""
    content = json.loads(path.read_text(encoding="utf-8"))
    alter(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def change_weights(folder: Path, alter: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Rewrite model.safetensors after `alter` changed its tensors in place."""
    weights = load_file(folder / "model.safetensors")
    alter(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def save_tiny_checkpoint(directory: Path) -> None:
    vlm = tiny_vlm()
    vlm.model.save_pretrained(directory)
    vlm.processor.save_pretrained(directory)
