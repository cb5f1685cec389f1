"""Tiny models with some tuned layers, and a checkpoint that cannot be loaded."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from harness.errors import PhaseError
from harness.models.vlm import Vlm
from harness.tests.support.tiny import tiny_vlm


def make_tuned_vlm(amount: float, layers: int = 6, width: int = 32) -> Vlm:
    """Return the tiny model with another name and relative noise of size `amount` on its last two layers."""
    vlm = tiny_vlm(layers=layers, width=width)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in vlm.anatomy.layers[-2:]:
            for parameter in layer.parameters():
                parameter.mul_(1.0 + amount * torch.randn(parameter.shape, generator=generator))
    return dataclasses.replace(vlm, name="tuned")


def load_tuned(cache: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    vlm = make_tuned_vlm(2.0)
    return vlm.model, vlm.processor


def load_broken(cache: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    raise PhaseError("the checkpoint /somebody/keeps/it/here cannot be loaded; look at /somebody/keeps/it/config.json")
