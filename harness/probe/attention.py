"""Norm-based attention of the last prompt token, read inside the model's own attention function."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from harness.errors import PhaseError
from harness.models.anatomy import Anatomy, output_projection
from harness.models.prompt import TokenGroups
from harness.probe.similarity import upcast

SHARES = ("image", "instruction", "other", "self")

Reader = Callable[[nn.Module, torch.Tensor], None]


class AttentionError(PhaseError):
    """The model's attention cannot be read; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class LastRow:
    """Attention of the last query in one layer.

    weights: softmax weights, (batch, heads, keys). values: alpha_j^h v_j^h of every key, heads concatenated,
    (batch, keys, heads x value dimension).
    """

    weights: torch.Tensor
    values: torch.Tensor


_reader: ContextVar[Callable[[nn.Module, LastRow], None] | None] = ContextVar("phase_attention_reader", default=None)


def last_row(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None,
    softcap: float | None = None,
) -> LastRow:
    """What the last query attends to, and the weighted values that it adds up.

    Args:
        query: (batch, heads, queries, key dimension), positions already rotated in.
        key: (batch, key heads, keys, key dimension); each key head serves heads / key heads query heads.
        value: (batch, key heads, keys, value dimension).
        attention_mask: bool (True = visible) or additive, broadcastable to (batch, heads, queries, keys), or None
            where every key is visible to the last query.
        scaling: factor on the logits; None is 1 / sqrt(key dimension).
        softcap: c of c tanh(logit / c), where the model has one.

    Returns:
        Weights and weighted values in float32 or better (Kobayashi et al. 2020, eq. 4, before W_O).
    """
    batch, heads, _, dim = query.shape
    key_heads, keys = key.shape[1], key.shape[2]
    last = upcast(query[:, :, -1]).view(batch, key_heads, heads // key_heads, dim)
    logits = torch.matmul(last, upcast(key).transpose(2, 3)) * (dim**-0.5 if scaling is None else scaling)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    logits = logits.view(batch, heads, keys)
    if attention_mask is not None:
        row = attention_mask[:, :, -1, :keys]
        logits = logits.masked_fill(~row, -torch.inf) if row.dtype == torch.bool else logits + row
    weights = logits.softmax(-1)
    grouped = weights.view(batch, key_heads, heads // key_heads, keys, 1)
    weighted = grouped * upcast(value).unsqueeze(2)
    return LastRow(weights, weighted.reshape(batch, heads, keys, -1).transpose(1, 2).reshape(batch, keys, -1))


def transformed(values: torch.Tensor, projection: nn.Linear) -> torch.Tensor:
    """The vectors sum_h alpha_j^h v_j^h W_O^h of every key, without the projection's bias.

    Args:
        values: `LastRow.values`, (batch, keys, heads x value dimension).
        projection: W_O; called as a module, so that offloaded weights are brought in first.

    Returns:
        (batch, keys, d) in float32 or better.
    """
    vectors = upcast(projection(values.to(projection.weight.dtype)))
    return vectors if projection.bias is None else vectors - output_bias(projection, values)


def output_bias(projection: nn.Linear, like: torch.Tensor) -> torch.Tensor:
    """The projection's bias (d,) in float32 or better; zero where it has none.

    An offloaded one is a placeholder while its layer does not run, so it is asked for by a call: what nothing gives.
    """
    if projection.bias is None:
        return like.new_zeros(projection.weight.shape[0], dtype=torch.float32)
    if projection.bias.is_meta:
        return upcast(projection(torch.zeros_like(like[:1, 0], dtype=projection.weight.dtype))[0])
    return upcast(projection.bias)


class ShareReader:
    """Shares of the last token's attention per token group: image, instruction, other and itself; they sum to 1."""

    def __init__(self, groups: TokenGroups) -> None:
        itself = torch.zeros_like(groups.real)
        itself[:, -1] = True
        masks = [groups.image & ~itself, groups.instruction & ~itself, groups.other & ~itself, itself]
        self._masks = torch.stack(masks, dim=1)

    def __call__(self, amounts: torch.Tensor) -> torch.Tensor:
        """Shares per group, (batch, 4) in the order of `SHARES`, of non-negative amounts (batch, keys)."""
        totals = torch.bmm(self._masks.to(amounts.dtype), amounts.unsqueeze(-1)).squeeze(-1)
        return totals / totals.sum(-1, keepdim=True)


def _observe_then(forward: Callable[..., Any]) -> Callable[..., Any]:
    def attend(
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **kwargs: Any,
    ) -> Any:
        read = _reader.get()
        if read is not None:
            read(module, last_row(query, key, value, attention_mask, kwargs.get("scaling"), kwargs.get("softcap")))
        return forward(module, query, key, value, attention_mask, **kwargs)

    return attend


def _own_eager(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    return sys.modules[type(module).__module__].eager_attention_forward(module, *args, **kwargs)


_NAMES = {"sdpa": "phase_sdpa", "eager": "phase_eager"}
_BASES = {"sdpa": (ALL_ATTENTION_FUNCTIONS["sdpa"], sdpa_mask), "eager": (_own_eager, eager_mask)}
for _backend, _name in _NAMES.items():
    # Without a mask function of the same name transformers drops the mask silently, left padding included.
    AttentionInterface.register(_name, _observe_then(_BASES[_backend][0]))
    AttentionMaskInterface.register(_name, _BASES[_backend][1])


@contextlib.contextmanager
def reading_attention(model: Any, anatomy: Anatomy, read: Callable[[int, nn.Linear, LastRow], None]) -> Iterator[None]:
    """Calls `read(layer, output projection, last row)` for every decoder layer of the forward passes inside the block.

    The attention implementation of the decoder is exchanged for one that observes and then calls the model's own; it is
    put back on leaving, also after an exception. Calls from outside the decoder layers are ignored.

    Raises:
        AttentionError: the model's implementation is neither sdpa nor eager, or the model does not take another.
    """
    owner = anatomy.layer_of_attention()

    def dispatch(module: nn.Module, row: LastRow) -> None:
        layer = owner.get(id(module))
        if layer is not None:
            read(layer, output_projection(module), row)

    before = anatomy.text_config._attn_implementation
    if before not in _NAMES:
        raise AttentionError(
            f"{anatomy.name} runs with attention {before!r}, whose weights cannot be read; load it with sdpa or eager"
        )
    key = anatomy.attention_key
    token = _reader.set(dispatch)
    try:
        model.set_attn_implementation({key: _NAMES[before]})
        if anatomy.text_config._attn_implementation != _NAMES[before]:
            raise AttentionError(
                f"{anatomy.name} does not let its attention function be exchanged (AttentionInterface)"
            )
        yield
    finally:
        _reader.reset(token)
        model.set_attn_implementation({key: before})
