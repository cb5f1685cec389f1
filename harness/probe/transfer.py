"""Everything that was read of a batch brought to the CPU at once: each transfer makes a GPU wait for the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def on_cpu(tensors: Mapping[str, torch.Tensor]) -> dict[str, NDArray[Any]]:
    """The tensors as arrays of their shapes and types, brought over in one piece."""
    flat = [tensor.contiguous().flatten().view(torch.uint8) for tensor in tensors.values()]
    content = torch.cat(flat).cpu().numpy()
    arrays, start = {}, 0
    for (name, tensor), part in zip(tensors.items(), flat, strict=True):
        kind = torch.empty(0, dtype=tensor.dtype).numpy().dtype
        # A copy, because a part of the piece may begin where no number of its type can, and would keep all of it.
        piece = np.frombuffer(content[start : start + len(part)].tobytes(), dtype=kind)
        arrays[name] = piece.reshape(tensor.shape).copy()
        start += len(part)
    return arrays
