"""Access to weights that accelerate offloads to CPU memory or disk."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from harness.errors import PhaseError


class OffloadError(PhaseError):
    """The values of a needed weight are unavailable."""


@contextlib.contextmanager
def weights_loaded(module: nn.Module) -> Iterator[None]:
    """Load the weights of one module to its computing device inside the block; offload them again afterwards.

    Weights that are already loaded stay, so blocks may be nested.

    Raises:
        OffloadError: they are on the meta device and no accelerate hook has them, or their file cannot be read.
    """
    if not any(parameter.is_meta for parameter in module.parameters(recurse=False)):
        yield
        return
    # accelerate's align_module_device does the same, but does not support nested hooks.
    hook = next((hook for hook in accelerate_hooks(module) if getattr(hook, "offload", False)), None)
    if hook is None:
        raise OffloadError(
            f"the weights of {type(module).__name__} are on the meta device and accelerate has no copy of them; load "
            "the model with device_map, or keep it on one device"
        )
    try:
        hook.pre_forward(module)
    except (OSError, ValueError) as error:
        raise OffloadError(
            f"the offloaded weights of {type(module).__name__} cannot be read ({error}): keep the offload folder as "
            "long as the model, and load the model again"
        ) from error
    try:
        yield
    finally:
        hook.post_forward(module, None)


def load_offloaded(model: nn.Module, name: str, tensor: Any) -> Any:
    """Return a parameter or buffer of `model` with its values, also if offloaded; None if they are unavailable.

    Args:
        model: the complete model.
        name: the dotted name of the tensor.
        tensor: the value with that name, on the meta device if offloaded. A value that is no tensor is returned as is.
    """
    if not getattr(tensor, "is_meta", False):
        return tensor
    pieces = name.split(".")
    # The hook is on the module that owns the tensor, or on an ancestor that is loaded as a unit.
    for end in range(len(pieces) - 1, -1, -1):
        for hook in accelerate_hooks(model.get_submodule(".".join(pieces[:end]))):
            with contextlib.suppress(KeyError):
                stored: torch.Tensor = (getattr(hook, "weights_map", None) or {})[".".join(pieces[end:])]
                return stored.to(tensor.dtype)
    return None


def tied_duplicates(model: nn.Module) -> set[str]:
    """Return the names of offloaded tensors that are tied to an earlier one, such as an unembedding to the embeddings.

    In memory both are one tensor; accelerate represents them by two placeholders.
    """
    names = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    order = {name: index for index, name in enumerate(names)}
    tied: dict[str, str] = getattr(model, "all_tied_weights_keys", None) or {}
    pairs = [(name, source) for name, source in tied.items() if name in order and source in order]
    return {max(pair, key=order.__getitem__) for pair in pairs}


def computing_device(model: nn.Module) -> torch.device | None:
    """Return the input device of a model with offloaded weights; None if accelerate does not manage it."""
    for hook in (hook for module in model.modules() for hook in accelerate_hooks(module)):
        device = getattr(hook, "execution_device", None)
        if device is not None:
            # An integer is a GPU index.
            return torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    return None


def accelerate_hooks(module: nn.Module) -> tuple[Any, ...]:
    """Return the accelerate hooks of one module, with a sequential hook expanded."""
    hook: Any = getattr(module, "_hf_hook", None)
    return () if hook is None else getattr(hook, "hooks", (hook,))
