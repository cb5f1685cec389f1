"""The numbers that a model stores, wherever it keeps them, as bytes to be hashed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch import nn


def further_state(model: nn.Module) -> list[tuple[str, Any]]:
    """The entries of a state dictionary that are neither parameters nor buffers, by name: scales and packed weights."""
    entries = model.state_dict(keep_vars=True)
    stored = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    known = set(chain.from_iterable((name, id(tensor)) for name, tensor in stored))
    further = [(name, value) for name, value in entries.items() if name not in known and id(value) not in known]
    return sorted(further, key=lambda item: item[0])


def content(value: Any) -> Iterator[Any]:
    """The bytes of a tensor of any make, or of what else a state dictionary holds.

    A tensor that is made of others is read part by part.
    """
    if isinstance(value, torch.Tensor):
        if hasattr(value, "__tensor_flatten__"):
            for name in value.__tensor_flatten__()[0]:
                yield name.encode()
                yield from content(getattr(value, name))
        elif value.is_quantized:
            yield from content(value.dequantize())
        else:
            yield value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from content(part)
    elif isinstance(value, io.BytesIO):
        yield value.getvalue()
    elif value is None or isinstance(value, (bool, int, float, str, bytes, torch.dtype)):
        yield repr(value).encode()
