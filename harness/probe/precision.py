"""Float32 arithmetic with tensors of any floating type."""

from __future__ import annotations

import torch
from torch import nn

# The rows of a 16-bit weight that are converted to float32 at a time. On a CPU a block and its copy fit into the cache:
# a conversion of the whole weight writes and reads it once more in memory. A GPU works on larger blocks.
_BLOCK_ROWS = {"cpu": 512}
_MOST_ROWS = 4096


def upcast(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor in float32, or unchanged if it is float64; all reductions use this precision."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def wide_product(vectors: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the products (..., out) of vectors (..., in) with a weight (out, in), in float32 or better."""
    if weight.dtype in (torch.float32, torch.float64):
        return nn.functional.linear(vectors.to(weight.dtype), weight)
    wide = vectors.float()
    rows = min(len(weight), _BLOCK_ROWS.get(weight.device.type, _MOST_ROWS))
    # One buffer for all blocks, because new memory costs more than the conversion.
    buffer = torch.empty(rows, weight.shape[1], dtype=torch.float32, device=weight.device)
    parts = [nn.functional.linear(wide, buffer[: len(block)].copy_(block)) for block in torch.split(weight, rows)]
    return torch.cat(parts, dim=-1)


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
