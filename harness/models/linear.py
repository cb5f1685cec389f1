"""Linear layers of any implementation: adapted, quantised, hooked or plain."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import nn

from harness.errors import PhaseError, printable
from harness.models.offloaded import accelerate_hooks, weights_loaded

Hook = TypeVar("Hook", bound=Callable[..., Any])

#: The dtypes in which a model computes. 8-bit dtypes are for storage only.
COMPUTING_TYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


class LinearError(PhaseError):
    """A layer that should be linear cannot be evaluated; the message names its class and the remedy."""


def observer(hook: Hook) -> Hook:
    """Mark a hook as read-only, so that a layer with it still counts as plain."""
    hook.only_observes = True  # type: ignore[attr-defined]
    return hook


def is_plain(module: nn.Module) -> bool:
    """Return True if a layer computes the product with its floating weight plus its bias, and nothing else.

    Overridden or replaced forwards, packed weights and hooks may compute something else.
    """
    weight: Any = getattr(module, "weight", None)
    return (
        type(module).forward is nn.Linear.forward
        and type(weight) in (torch.Tensor, nn.Parameter)
        and weight.dtype in COMPUTING_TYPES
        and _has_own_forward(module)
        and all(
            getattr(hook, "only_observes", False)
            for hook in chain(module._forward_hooks.values(), module._forward_pre_hooks.values())
        )
    )


def stores_codes(module: nn.Module) -> bool:
    """Return True if a layer stores quantised codes instead of floating weights."""
    tensors = [*module.parameters(), *module.buffers()]
    return not tensors or any(
        tensor.dtype not in COMPUTING_TYPES or type(tensor) not in (torch.Tensor, nn.Parameter) for tensor in tensors
    )


def is_linear(module: Any) -> bool:
    """Return True if a module has the attributes of a linear layer or wraps one."""
    if not isinstance(module, nn.Module):
        return False
    weight = getattr(module, "weight", None)
    matrix = isinstance(weight, torch.Tensor) and weight.ndim == 2
    return matrix or (_takes_one_input(module) and any(hasattr(part, "in_features") for part in module.modules()))


def takes_width(module: nn.Module, width: int) -> bool:
    """Return True if a layer accepts vectors of length `width`; a layer without a stated width is tried."""
    weight = getattr(module, "weight", None)
    if isinstance(weight, torch.Tensor) and weight.ndim == 2 and weight.shape[1] == width:
        return True
    stated = getattr(module, "in_features", None)
    if stated is not None or (isinstance(weight, torch.Tensor) and weight.is_floating_point()):
        return bool(stated == width)
    try:
        return apply_linear(module, torch.zeros(1, width)).ndim == 2
    except LinearError:
        return False


def output_width(module: nn.Module, width: int) -> int:
    """Return the output width of a layer for vectors of length `width`, by a trial if its weights do not show it."""
    if is_plain(module):
        return len(module.weight)  # type: ignore[arg-type]
    return apply_linear(module, torch.zeros(1, width)).shape[-1]


def apply_linear(module: nn.Module, vectors: torch.Tensor) -> torch.Tensor:
    """Return the outputs (rows, out) of a layer for vectors (rows, in), which are cast to its dtype.

    Raises:
        LinearError: the layer rejects the vectors.
    """
    tensors = chain(module.parameters(), module.buffers())
    types = dict.fromkeys(tensor.dtype for tensor in tensors if tensor.dtype in COMPUTING_TYPES)
    problem: Exception | None = None
    # A float32 adapter may precede or follow a 16-bit layer, which accepts only its own dtype.
    for dtype in types or (torch.float32,):
        try:
            with torch.inference_mode():
                output: torch.Tensor = module(vectors.to(device_of(module, vectors.device), dtype).unsqueeze(1))
            return output[:, 0]
        except Exception as error:  # Layers of other libraries may raise any type.
            problem = problem or error
    raise LinearError(
        f"{type(module).__name__} takes the place of a linear layer but does not map vectors of "
        f"{vectors.shape[-1]} numbers ({type(problem).__name__}: {printable(str(problem), 120)}); "
        "dequantise the model or merge the adapter, then measure again"
    ) from problem


def device_of(module: nn.Module, otherwise: torch.device) -> torch.device:
    """Return the device where a module computes, or `otherwise` if it holds no values, as with offloaded modules."""
    with weights_loaded(module):
        tensors = chain(module.parameters(), module.buffers())
        return next((tensor.device for tensor in tensors if not tensor.is_meta), otherwise)


def _takes_one_input(module: nn.Module) -> bool:
    """Return True if the forward needs one input only; a projection gated by the layer's input needs two."""
    parameters = inspect.signature(module.forward).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = [item for item in parameters if item.kind in positional and item.default is inspect.Parameter.empty]
    return len(required) <= 1


def _has_own_forward(module: nn.Module) -> bool:
    """Return True unless the forward of this instance was replaced; accelerate's replacement only moves tensors."""
    replaced = vars(module).get("forward")
    if replaced is None:
        return True
    hooks = accelerate_hooks(module)
    by_accelerate = bool(hooks) and isinstance(replaced, functools.partial)
    original = getattr(vars(module).get("_old_forward"), "__func__", None)
    return by_accelerate and original is nn.Linear.forward and all(hasattr(hook, "execution_device") for hook in hooks)
