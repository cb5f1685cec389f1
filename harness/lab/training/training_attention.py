"""Attention for training on a CPU in bfloat16: the backward pass of SDPA is slow there, so it runs in float32."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

FULL, CAUSAL = "train_full", "train_causal"


def register_training_attention() -> None:
    """Make FULL and CAUSAL known to transformers' `set_attn_implementation`."""
    AttentionInterface.register(FULL, full_attention)
    AttentionInterface.register(CAUSAL, causal_attention)


def full_attention(
    module: nn.Module, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, attention_mask: Any, scaling: float, **_: Any
) -> tuple[torch.Tensor, None]:
    """Attention over all positions; q (batch, heads, tokens, width), returns (batch, tokens, heads, width)."""
    return _float_attention(q, k, v, scaling, causal=False), None


def causal_attention(
    module: nn.Module, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, attention_mask: Any, scaling: float, **_: Any
) -> tuple[torch.Tensor, None]:
    """Attention to earlier positions, shapes as above. There is no mask: rows are padded on the right."""
    return _float_attention(q, k, v, scaling, causal=True), None


def _float_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scaling: float, *, causal: bool
) -> torch.Tensor:
    groups = q.shape[1] // k.shape[1]
    wide_k, wide_v = (t.float().repeat_interleave(groups, dim=1) for t in (k, v))
    with torch.autocast("cpu", enabled=False):
        out = scaled_dot_product_attention(q.float(), wide_k, wide_v, is_causal=causal, scale=scaling)
    return out.transpose(1, 2).to(q.dtype).contiguous()
