"""Where the weights of a checkpoint go: one device where they fit, else all GPUs, then the CPU's memory, then disk."""

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

# Share of free memory that weights may fill; the rest is for the forward pass.
_FILLED = 0.85
_OFFLOAD = "offload"


@contextlib.contextmanager
def placement_options(headers: Mapping[str, StoredTensor], request: LoadRequest) -> Iterator[dict[str, Any]]:
    """What `from_pretrained` is told about devices, for tensors with these headers; nothing where it need not be told.

    A model that the requested GPU has room for lies there whole. A larger one is spread over all GPUs (over one alone
    where that was asked for by its number), the CPU's memory and disk. Without a GPU, one that outgrows the free memory
    is spread over memory and disk.

    What was put on disk goes where the block ends in an error; else see `remove_with`.
    """
    placed = _placement(headers, request)
    try:
        yield placed
    except BaseException:
        if "offload_folder" in placed:
            shutil.rmtree(placed["offload_folder"], ignore_errors=True)
        raise


def _placement(headers: Mapping[str, StoredTensor], request: LoadRequest) -> dict[str, Any]:
    if request.device.type not in ("cpu", "cuda"):
        return {}
    # Quantised weights keep their storage type, the others are converted.
    width = torch.empty((), dtype=request.dtype).element_size()
    needed = sum(tensor.size(width) for tensor in headers.values())
    room: dict[int | str, int] = {"cpu": _free_memory()}
    if request.device.type == "cuda":
        gpus = range(torch.cuda.device_count()) if request.device.index is None else (request.device.index,)
        room = {**{gpu: int(_FILLED * torch.cuda.mem_get_info(gpu)[0]) for gpu in gpus}, **room}
    first = next(iter(room))
    if needed <= room[first]:
        return {} if first == "cpu" else {"device_map": {"": request.device}}
    # A folder of this load alone: its content belongs to these weights, dtype and process.
    folder = temporary_path(make_private(request.cache, _OFFLOAD))
    folder.mkdir(mode=0o700)
    return {"device_map": "auto", "max_memory": room, "offload_folder": str(folder)}


def remove_with(model: nn.Module, placed: dict[str, Any]) -> None:
    """Let what was put on disk for a model go when the model goes."""
    if "offload_folder" in placed:
        weakref.finalize(model, _remove, placed["offload_folder"], os.getpid())


def sweep_offloaded(cache: Path) -> None:
    """Remove what killed processes have put on disk in a cache, gigabytes each."""
    remove_abandoned_parts(cache / _OFFLOAD)


def _remove(folder: str, owner: int) -> None:
    # A fork of the owner that ends must not take the weights from it.
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def _free_memory() -> int:
    import psutil

    return int(_FILLED * psutil.virtual_memory().available)
