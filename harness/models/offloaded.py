"""Weights that accelerate keeps in the CPU's memory or on disk: brought in where they are read, and no longer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from harness.errors import PhaseError


class OffloadError(PhaseError):
    """A weight is needed, and nothing tells where its numbers are kept."""


@contextlib.contextmanager
def weights_loaded(module: nn.Module) -> Iterator[None]:
    """The weights of one module on the device where it computes, inside the block; offloaded ones leave again after it.

    Nothing happens where they are there already, so blocks may stand inside each other.

    Raises:
        OffloadError: they are on the meta device, and no hook of accelerate's has them, or their file cannot be read.
    """
    if not any(parameter.is_meta for parameter in module.parameters(recurse=False)):
        yield
        return
    # What accelerate's own align_module_device does, which knows no hook that stands inside another.
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
    """A parameter or buffer of `model` with its numbers, wherever accelerate keeps them; None where nothing has them.

    Args:
        model: the whole model.
        name: the dotted name of the tensor in it.
        tensor: what stands under that name; on the meta device where it is offloaded. No tensor is returned as it is.
    """
    if not getattr(tensor, "is_meta", False):
        return tensor
    pieces = name.split(".")
    # A hook stands at the module that owns the tensor, or further up where a block is brought in as a whole.
    for end in range(len(pieces) - 1, -1, -1):
        for hook in accelerate_hooks(model.get_submodule(".".join(pieces[:end]))):
            with contextlib.suppress(KeyError):
                found: torch.Tensor = (getattr(hook, "weights_map", None) or {})[".".join(pieces[end:])]
                return found.to(tensor.dtype)
    return None


def tied_duplicates(model: nn.Module) -> set[str]:
    """The names of offloaded tensors that are tied to one of an earlier name, as an unembedding to the embeddings.

    In memory the two are one tensor; accelerate makes two placeholders of them.
    """
    names = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    place = {name: index for index, name in enumerate(names)}
    tied: dict[str, str] = getattr(model, "all_tied_weights_keys", None) or {}
    pairs = [(one, other) for one, other in tied.items() if one in place and other in place]
    return {max(pair, key=place.__getitem__) for pair in pairs}


def computing_device(model: nn.Module) -> torch.device | None:
    """Where a model with offloaded weights takes its inputs; None where accelerate does not hold it."""
    for hook in (hook for module in model.modules() for hook in accelerate_hooks(module)):
        device = getattr(hook, "execution_device", None)
        if device is not None:
            # A bare number is a GPU's.
            return torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    return None


def accelerate_hooks(module: nn.Module) -> tuple[Any, ...]:
    """Return the hooks of accelerate's on one module; several of them stand inside one."""
    hook: Any = getattr(module, "_hf_hook", None)
    return () if hook is None else getattr(hook, "hooks", (hook,))
