"""Float32 arithmetic with tensors of any floating type."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

# The rows of a weight that are multiplied at a time. On a CPU a block of a 16-bit weight and its float32 copy fit into
# the cache, and so do the products with other blocks.
_ROWS, _CONVERTED_ROWS = 4096, 512


def upcast(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor in float32, or unchanged if it is float64; all reductions use this precision."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def wide_product(vectors: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the products (..., out) of vectors (..., in) with a weight (out, in), in float32 or better."""
    if weight.dtype in (torch.float32, torch.float64):
        return next(_products(vectors.to(weight.dtype), [weight]))
    return torch.cat([*product_blocks(vectors, weight)], dim=-1)


def product_blocks(vectors: torch.Tensor, weight: torch.Tensor) -> Iterator[torch.Tensor]:
    """Return the products (..., rows) of vectors (..., in) with consecutive rows of a weight, in float32 or better."""
    if weight.dtype in (torch.float32, torch.float64):
        return _products(vectors.to(weight.dtype), torch.split(weight, _ROWS))
    rows = min(len(weight), _CONVERTED_ROWS if weight.device.type == "cpu" else _ROWS)
    # The blocks share a buffer, because new memory costs more than the conversion.
    buffer = torch.empty(rows, weight.shape[1], dtype=torch.float32, device=weight.device)
    return _products(vectors.float(), (buffer[: len(block)].copy_(block) for block in torch.split(weight, rows)))


def split_product(vectors: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the float32 product of vectors (..., in) and a bfloat16 weight (out, in), computed on GPU tensor cores.

    The vectors are split into two bfloat16 parts, with a relative error of 2^-17. A product of float32 matrices would
    take as long as half a decoder layer.
    """
    flat = vectors.float().flatten(0, -2)
    large = flat.to(weight.dtype)
    small = (flat - large.float()).to(weight.dtype)
    halves = torch.mm(torch.cat([large, small]), weight.T, out_dtype=torch.float32)
    return halves.view(2, *vectors.shape[:-1], len(weight)).sum(0)


def _products(vectors: torch.Tensor, weights: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    with_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if with_onednn and vectors.device.type == "cpu" and vectors.dtype == torch.float32:
        # oneDNN uses all vector instructions of the processor. MKL, which `@` calls, does so on Intel's only.
        operand = vectors.to_mkldnn()
        yield from (functional.linear(operand, weight).to_dense() for weight in weights)
    else:
        yield from (vectors @ weight.T for weight in weights)


class OneDnnLayers(TorchFunctionMode):
    """Inside the block, linear layers multiply float32 tensors on a CPU with oneDNN, as `wide_product` does."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch; a plain linear layer is replaced."""
        if func is functional.linear and not kwargs and _suits_onednn(*args[:2]):
            return functional.linear(args[0].to_mkldnn(), *args[1:]).to_dense()
        return func(*args, **(kwargs or {}))


def _suits_onednn(vectors: torch.Tensor, weight: torch.Tensor) -> bool:
    """Return True for dense float32 tensors on a CPU; subclasses, such as quantised weights, have their own product."""
    return torch.backends.mkldnn.is_available() and all(  # type: ignore[no-untyped-call]
        type(tensor) in (torch.Tensor, nn.Parameter)
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and tensor.dtype == torch.float32
        for tensor in (vectors, weight)
    )
