"""The linear map that a layer of any make computes, for the parts of a sum that it computes in one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from harness.models.linear import answers, is_plain
from harness.models.offloaded import brought_in
from harness.probe.similarity import upcast


@dataclass(frozen=True, slots=True)
class LinearMap:
    """weight: (out, in) in any floating type. bias: (out,), None where there is none."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __call__(self, vectors: torch.Tensor) -> torch.Tensor:
        """The products (..., out) of vectors (..., in) in float32 or better, without the bias."""
        if self.weight.is_cuda and self.weight.dtype == torch.bfloat16 and hasattr(torch.ops.aten.mm, "dtype"):
            return split_product(vectors, self.weight)
        weight = upcast(self.weight)
        return nn.functional.linear(vectors.to(weight.dtype), weight)


def linear_map(module: nn.Module, vectors: torch.Tensor) -> LinearMap:
    """The map of a layer: its weight where it is plain, else its answers to unit vectors less the answer to zero.

    A layer that quantises what it is given maps unit vectors exactly.

    Args:
        module: a layer that is linear in its input, up to a bias.
        vectors: vectors (..., in) that it will be applied to; the unit vectors are made on their device.

    Raises:
        LinearError: the layer does not take vectors of that width.
        OffloadError: its weights are on the meta device, and nothing holds their numbers.
    """
    if is_plain(module):
        with brought_in(module):
            return LinearMap(module.weight, module.bias)  # type: ignore[arg-type]
    width = vectors.shape[-1]
    # Alone, because a layer that quantises all rows on one scale would round zeros and units together.
    bias = upcast(answers(module, torch.zeros(1, width, device=vectors.device)))[0]
    unit = upcast(answers(module, torch.eye(width, device=vectors.device)))
    return LinearMap((unit - bias).T, bias)


def split_product(vectors: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The product in float32 of vectors (..., in) with a bfloat16 weight (out, in) on the tensor cores of a GPU.

    The vectors are split in two bfloat16 parts, which leaves 2^-17 of each number; the product of float32 matrices
    would take as long as half a decoder layer.
    """
    flat = vectors.float().flatten(0, -2)
    large = flat.to(weight.dtype)
    small = (flat - large.float()).to(weight.dtype)
    halves = torch.mm(torch.cat([large, small]), weight.T, out_dtype=torch.float32)
    return halves.view(2, *vectors.shape[:-1], len(weight)).sum(0)
