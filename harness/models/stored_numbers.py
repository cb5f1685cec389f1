"""The numbers that a model stores, wherever it keeps them, as bytes to be hashed."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch import nn

# Methods of a module that say what it saves.
_SAVING = ("_save_to_state_dict", "get_extra_state")


def extra_state(model: nn.Module) -> list[tuple[str, Any]]:
    """What layers save beside their parameters and buffers, as scales and packed weights, sorted by name."""
    stored = chain(model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False))
    known = {name for name, _ in stored}
    further: dict[str, Any] = {}
    for path, module in model.named_modules():
        if any(getattr(type(module), method) is not getattr(nn.Module, method) for method in _SAVING):
            # A copy, because some layers rearrange their numbers for good when they save them. The hook stays: it may
            # hold the weights of the whole model.
            hook = vars(module).get("_hf_hook")
            further |= copy.deepcopy(module, {id(hook): hook}).state_dict(prefix=f"{path}." if path else "")
    return sorted(((name, value) for name, value in further.items() if name not in known), key=lambda item: item[0])


def content_bytes(value: Any) -> Iterator[Any]:
    """The bytes of a tensor of any make, or of what else a state dictionary holds.

    A tensor that is made of others is read part by part.
    """
    if isinstance(value, torch.Tensor):
        if hasattr(value, "__tensor_flatten__"):
            for name in value.__tensor_flatten__()[0]:
                yield name.encode()
                yield from content_bytes(getattr(value, name))
        elif value.is_quantized:
            yield from content_bytes(value.dequantize())
        else:
            yield value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from content_bytes(part)
    elif isinstance(value, io.BytesIO):
        yield value.getvalue()
    elif value is None or isinstance(value, (bool, int, float, str, bytes, torch.dtype)):
        yield repr(value).encode()
