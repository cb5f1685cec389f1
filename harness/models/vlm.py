"""A vision-language model ready to be measured: model, processor, parts, and where it lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from harness.errors import PhaseError
from harness.models.anatomy import Anatomy, find_anatomy
from harness.models.registry import DTYPES, ModelEntry


class DeviceError(PhaseError):
    """The device that was asked for is not there; the message says what is."""


@dataclass(frozen=True, slots=True)
class Vlm:
    """A loaded model under the name that its baselines carry."""

    name: str
    model: Any
    processor: Any
    anatomy: Anatomy

    @property
    def device(self) -> torch.device:
        """Where the inputs go."""
        return torch.device(self.model.device)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the decoder's numbers."""
        return next(self.anatomy.layers[0].parameters()).dtype

    @property
    def attention(self) -> str:
        """The decoder's attention implementation."""
        return str(self.anatomy.text_config._attn_implementation)


def choose_device(name: str) -> torch.device:
    """The device of that name; 'auto' is the first GPU where there is one, else the CPU.

    Raises:
        DeviceError: a GPU was asked for and torch sees none, or the name is not a device's.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"{name!r} is no device; use auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError(f"--phase-device {name}: torch {torch.__version__} sees no CUDA device here; use cpu or auto")
    if device.type == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        raise DeviceError(f"--phase-device {name}: there are only {torch.cuda.device_count()} CUDA devices here")
    return device


def choose_dtype(name: str, device: torch.device, *, embedded: bool) -> torch.dtype:
    """The dtype of that name, short or torch's own; 'auto' is fp32 for embedded models and on a CPU, else bf16.

    Raises:
        LookupError: there is no such name.
    """
    if name == "auto":
        return torch.float32 if embedded or device.type == "cpu" else torch.bfloat16
    full = DTYPES.get(name, name)
    if full not in DTYPES.values():
        raise LookupError(f"unknown dtype {name!r}; use auto, {', '.join(DTYPES)}")
    dtype: torch.dtype = getattr(torch, full)
    return dtype


def load_vlm(entry: ModelEntry, *, cache: Path, device: str = "auto", dtype: str = "auto") -> Vlm:
    """The model of a registry entry, on its device, in eval mode.

    Raises:
        WeightsError: the weights cannot be had.
        DeviceError: the device is not there.
        AnatomyError: the model has no part of the kind that a measurement needs.
    """
    place = choose_device(device)
    model, processor = entry.load(cache, choose_dtype(dtype, place, embedded=entry.embedded))
    model = model.to(place).eval()
    return Vlm(entry.name, model, processor, find_anatomy(model))
