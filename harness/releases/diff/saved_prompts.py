"""Prompts of a tiny model in a file, so that another release gets the same inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from harness.models.prompts.prompt import TokenGroups
from harness.releases.tiny.prompts import TinyPrompt

_GROUPS = tuple(field.name for field in fields(TokenGroups))
_INPUT, _GROUP, _SEPARATORS = "input", "group", "separators"


def save_prompts(path: Path, prompts: Mapping[str, TinyPrompt]) -> None:
    """Write the inputs, token groups and separators of prompts by name."""
    tensors: dict[str, torch.Tensor] = {}
    for name, prompt in prompts.items():
        tensors |= {f"{name}/{_INPUT}/{key}": value for key, value in prompt.inputs.items()}
        tensors |= {f"{name}/{_GROUP}/{key}": getattr(prompt.groups, key) for key in _GROUPS}
        tensors[f"{name}/{_SEPARATORS}"] = prompt.separators
    # The file format stores no tensors that share memory.
    save_file({key: value.contiguous().clone() for key, value in tensors.items()}, path)


def load_prompts(path: Path) -> dict[str, TinyPrompt]:
    """Return the prompts of a file by name."""
    inputs: dict[str, dict[str, torch.Tensor]] = {}
    groups: dict[str, dict[str, torch.Tensor]] = {}
    separators: dict[str, torch.Tensor] = {}
    for key, value in load_file(path).items():
        name, kind, *rest = key.split("/")
        if kind == _INPUT:
            inputs.setdefault(name, {})[rest[0]] = value
        elif kind == _GROUP:
            groups.setdefault(name, {})[rest[0]] = value
        else:
            separators[name] = value
    return {name: TinyPrompt(inputs[name], TokenGroups(**groups[name]), separators[name]) for name in separators}
