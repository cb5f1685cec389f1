"""Placement of a checkpoint's weights: one device if they fit, else all GPUs, then CPU memory, then disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.models.checkpoints.weight_files import StoredTensor
from harness.models.registry import LoadRequest
from harness.storage.files import remove_abandoned_parts, temporary_path
from harness.storage.private_files import make_private

# Share of free memory for weights; the rest is for the forward pass.
_FILLED = 0.85
_OFFLOAD = "offload"


@contextlib.contextmanager
def placement_options(headers: Mapping[str, StoredTensor], request: LoadRequest) -> Iterator[dict[str, Any]]:
    """Yield the device options of `from_pretrained` for tensors with these headers; empty if none are needed.

    A model that fits on the requested GPU is placed there. A larger model is spread over all GPUs, CPU memory and disk;
    only the requested GPU is used if the request has its index. Without a GPU, a model that exceeds the free memory is
    spread over memory and disk.

    Weights offloaded to disk are deleted if the block raises; otherwise call `remove_with` with the loaded model.
    """
    options = _placement(headers, request)
    try:
        yield options
    except BaseException:
        if "offload_folder" in options:
            shutil.rmtree(options["offload_folder"], ignore_errors=True)
        raise


def _placement(headers: Mapping[str, StoredTensor], request: LoadRequest) -> dict[str, Any]:
    if request.device.type not in ("cpu", "cuda"):
        return {}
    # Quantised weights keep their storage type, the others are converted.
    width = torch.empty((), dtype=request.dtype).element_size()
    needed = sum(tensor.size(width) for tensor in headers.values())
    free_bytes: dict[int | str, int] = {"cpu": _free_memory()}
    if request.device.type == "cuda":
        gpus = range(torch.cuda.device_count()) if request.device.index is None else (request.device.index,)
        free_bytes = {**{gpu: int(_FILLED * torch.cuda.mem_get_info(gpu)[0]) for gpu in gpus}, **free_bytes}
    first = next(iter(free_bytes))
    if needed <= free_bytes[first]:
        return {} if first == "cpu" else {"device_map": {"": request.device}}
    # Each load has its own folder: the content depends on weights, dtype and process.
    folder = temporary_path(make_private(request.cache, _OFFLOAD))
    folder.mkdir(mode=0o700)
    return {"device_map": "auto", "max_memory": free_bytes, "offload_folder": str(folder)}


def remove_with(model: nn.Module, options: dict[str, Any]) -> None:
    """Delete the weights on disk of an offloaded model as soon as the model is garbage-collected."""
    if "offload_folder" in options:
        weakref.finalize(model, _remove, options["offload_folder"], os.getpid())


def sweep_offloaded(cache: Path) -> None:
    """Delete the weights that killed processes left in a cache, gigabytes each."""
    remove_abandoned_parts(cache / _OFFLOAD)


def _remove(folder: str, owner: int) -> None:
    # A fork of the owner must not delete the weights when it ends.
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def _free_memory() -> int:
    import psutil

    return int(_FILLED * psutil.virtual_memory().available)
