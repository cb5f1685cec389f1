"""Provenance of a measurement: versions, device and weight hashes, and a score of comparable environments."""

from __future__ import annotations

import hashlib
import platform
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

#: The version of a package. Its metadata are parsed once per process, because that takes milliseconds.
version = cache(metadata.version)

# The most threads that hash weights. Each holds a copy of one tensor if the model is on a GPU.
_HASH_THREADS = 4


@dataclass(frozen=True, slots=True)
class Environment:
    """Versions, device, dtype and attention of a measurement; different environments may be compared."""

    torch: str
    transformers: str
    device: str
    device_name: str
    dtype: str
    attention: str

    def __str__(self) -> str:
        return (
            f"torch {self.torch}, transformers {self.transformers}, {self.device} ({self.device_name}), {self.dtype}, "
            f"{self.attention}"
        )

    def differences(self, other: Environment) -> list[str]:
        """Return the fields that differ from `other`, each as 'field: other -> self'."""
        current, earlier = asdict(self), asdict(other)
        return [
            f"{field}: {earlier[field]} -> {current[field]}" for field in current if current[field] != earlier[field]
        ]

    def nearness(self, other: Environment) -> float:
        """Return a score of how comparable the two environments are; larger is more comparable."""
        same_release = [
            current.split("+")[0].split(".")[:2] == earlier.split("+")[0].split(".")[:2]
            for current, earlier in ((self.torch, other.torch), (self.transformers, other.transformers))
        ]
        return (
            8.0 * (self.dtype == other.dtype)
            + 4.0 * (self.device == other.device)
            + 2.0 * (self.device_name == other.device_name)
            + 1.0 * (self.attention == other.attention)
            + 0.5 * sum(same_release)
        )


def environment(device: Any, dtype: Any, attention: str) -> Environment:
    """Return the environment of a model on `device` with this dtype and attention implementation."""
    return Environment(
        torch=version("torch").split("+")[0],
        transformers=version("transformers"),
        device=str(device.type),
        device_name=device_name(device),
        dtype=str(dtype).removeprefix("torch."),
        attention=attention,
    )


def installed_version(package: str) -> str:
    """Return the version of a package, "not installed" if it is missing."""
    try:
        return version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def device_name(device: Any) -> str:
    """Return the name of the GPU or CPU."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 - a kernel file that only Linux has
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def weight_hashes(model: nn.Module) -> tuple[str, str]:
    """Return two SHA-256 hashes of 16 hex digits: over all parameters and buffers, and without non-persistent ones.

    Both include further state of a layer, such as the scales of quantised weights. The second hash covers what a
    checkpoint stores; it excludes frequencies and masks that a model computes from its configuration. Offloaded
    tensors are read one at a time from accelerate's storage, so the hashes equal those of the model in memory.
    Tensors on the meta device without stored values count by name, shape and dtype only.
    """
    from torch import get_num_threads

    from harness.models.offloaded import load_offloaded, tied_duplicates
    from harness.models.stored_numbers import content_hash, extra_state

    def hash_value(name: str, value: Any) -> bytes:
        if name not in tensors:
            return content_hash(value, name)
        header = f"{name} {tuple(value.shape)} {value.dtype}"
        numbers = load_offloaded(model, name, value)
        return content_hash(() if numbers is None else numbers, header)

    aliases = tied_duplicates(model)
    tensors = dict(sorted([*model.named_parameters(), *model.named_buffers()]))
    values = {name: tensor for name, tensor in tensors.items() if name not in aliases} | dict(extra_state(model))
    computed = {
        f"{path}.{name}".lstrip(".")
        for path, module in model.named_modules()
        for name in module._non_persistent_buffers_set
    }
    # A model is offloaded because memory is short, so its tensors are read one at a time.
    offloaded = any(tensor.is_meta for tensor in tensors.values())
    # hashlib computes without Python's lock.
    with ThreadPoolExecutor(1 if offloaded else min(_HASH_THREADS, get_num_threads())) as threads:
        digests = dict(zip(values, threads.map(hash_value, values, values.values()), strict=True))
    everything = b"".join(digests.values())
    stored = b"".join(part for name, part in digests.items() if name not in computed)
    return hashlib.sha256(everything).hexdigest()[:16], hashlib.sha256(stored).hexdigest()[:16]
