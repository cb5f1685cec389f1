"""The values that a model stores, as bytes for hashing."""

from __future__ import annotations

import copy
import hashlib
import io
from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch import nn

# Methods that define what a module saves.
_SAVING = ("_save_to_state_dict", "get_extra_state")


def extra_state(model: nn.Module) -> list[tuple[str, Any]]:
    """Return what layers save besides parameters and buffers, such as scales and packed weights, sorted by name."""
    stored = chain(model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False))
    listed = {name for name, _ in stored}
    extra: dict[str, Any] = {}
    for path, module in model.named_modules():
        if any(getattr(type(module), method) is not getattr(nn.Module, method) for method in _SAVING):
            # A copy, because saving permanently rearranges the values of some layers. The hook is shared, because it
            # may hold the weights of the complete model.
            hook = vars(module).get("_hf_hook")
            extra |= copy.deepcopy(module, {id(hook): hook}).state_dict(prefix=f"{path}." if path else "")
    return sorted(((name, value) for name, value in extra.items() if name not in listed), key=lambda item: item[0])


def content_hash(value: Any, header: str = "") -> bytes:
    """Return the SHA-256 of a header and the `content_bytes` of a value."""
    digest = hashlib.sha256(header.encode())
    for part in content_bytes(value):
        digest.update(part)
    return digest.digest()


def content_bytes(value: Any) -> Iterator[Any]:
    """Yield the bytes of a tensor of any class, or of another value of a state dictionary.

    A tensor that consists of others is read part by part.
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
