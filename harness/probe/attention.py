"""Norm-based attention of the last prompt token, read inside the model's own attention function."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from harness.errors import PhaseError
from harness.models.anatomy import Anatomy, output_projection
from harness.models.linear import observer
from harness.probe.similarity import upcast


class AttentionError(PhaseError):
    """The model's attention cannot be read; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class LastRow:
    """Attention of the last query in one layer.

    weights: softmax weights, (batch, heads, keys). values: alpha_j^h v_j^h of every key, heads concatenated,
    (batch, keys, heads x value dimension). refused: why these are not what the output projection adds up; empty where
    they are.
    """

    weights: torch.Tensor
    values: torch.Tensor
    unusable: str = ""


_Reader = Callable[[nn.Module, LastRow, torch.Tensor], None]
_reader: ContextVar[_Reader | None] = ContextVar("phase_attention_reader", default=None)


def last_row(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None,
    softcap: float | None = None,
    position_bias: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
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
        position_bias: added to the logits, broadcastable to (batch, heads, queries, keys), where the model has one.
        sinks: logits that take a share of the softmax and add no value, (heads,) or (batch, heads, queries, 1).

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
    if position_bias is not None:
        logits = logits + upcast(position_bias)[:, :, -1, :keys]
    if attention_mask is not None:
        row = attention_mask[:, :, -1, :keys]
        logits = logits.masked_fill(~row, -torch.inf) if row.dtype == torch.bool else logits + row
    if sinks is not None:
        sink = upcast(sinks).view(1, heads, 1) if sinks.ndim == 1 else upcast(sinks)[:, :, -1]
        logits = torch.cat([logits, sink.expand(batch, heads, 1)], dim=-1)
    weights = logits.softmax(-1)[..., :keys]
    grouped = weights.view(batch, key_heads, heads // key_heads, keys, 1)
    weighted = grouped * upcast(value).unsqueeze(2)
    return LastRow(weights, weighted.reshape(batch, heads, keys, -1).transpose(1, 2).reshape(batch, keys, -1))


_SEVERAL = "it computes several attentions in one layer, and no single one is what the layer adds up"
# What stands between attention and output projection: nothing, a gate, or what is refused. It is a fact of the model,
# found at its first row, because to look at numbers makes a GPU wait.
_NOTHING, _GATE = "nothing", "a gate"
_between: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def apply_gate(row: LastRow, projection: nn.Module, given: torch.Tensor, fed: torch.Tensor) -> LastRow:
    """Return the row with its values as the output projection gets them, where a gate scales them on the way.

    Args:
        row: what the last query attends to.
        projection: W_O.
        given: what the attention function gives for the last query, (batch, heads x value dimension).
        fed: what W_O is fed for it, of the same shape where nothing else stands between them.

    Returns:
        The row itself, the row with every value scaled by the gate, or a refused row where it is no gate: of another
        width, or of changing sign as behind a norm, which is not linear in the values.
    """
    if row.unusable or _between.get(projection) == _NOTHING:
        return row
    given, fed = upcast(given), upcast(fed)
    if projection not in _between:
        # A sample whose numbers are NaN says nothing of the model.
        whole = given.isfinite().all(-1) & fed.isfinite().all(-1)
        if not bool(whole.any()):
            return row
        _between[projection] = _found_between(given[whole], fed[whole])
    found = _between[projection]
    if found == _NOTHING:
        return row
    if found == _GATE:
        return replace(row, values=row.values * _gate(given, fed).unsqueeze(1))
    return replace(row, unusable=found)


def _found_between(given: torch.Tensor, fed: torch.Tensor) -> str:
    if given.shape != fed.shape:
        return f"its output projection is fed {fed.shape[-1]} numbers, not {given.shape[-1]}"
    if torch.equal(given, fed):
        return _NOTHING
    if bool((_gate(given, fed) < 0).any()):
        return "what stands between attention and output projection is no gate (a norm?)"
    return _GATE


def _gate(given: torch.Tensor, fed: torch.Tensor) -> torch.Tensor:
    """Return the factor between the two; where the values cancel nothing is fed on, whatever it is."""
    # Sample by sample, so that none has a part in another's.
    return torch.where(given.abs() > 1e-6 * given.abs().amax(-1, keepdim=True), fed / given, torch.zeros_like(fed))


def _observe_then(forward: Callable[..., Any]) -> Callable[..., Any]:
    def attend(
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **kwargs: Any,
    ) -> Any:
        result = forward(module, query, key, value, attention_mask, **kwargs)
        read = _reader.get()
        if read is not None:
            sinks = kwargs.get("sinks", kwargs.get("s_aux"))
            extra = (kwargs.get("scaling"), kwargs.get("softcap"), kwargs.get("position_bias"), sinks)
            given = result[0][:, -1].flatten(1)
            read(module, last_row(query, key, value, attention_mask, *extra), given)
        return result

    return attend


def _own_eager(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    return sys.modules[type(module).__module__].eager_attention_forward(module, *args, **kwargs)


_NAMES = {"sdpa": "phase_sdpa", "eager": "phase_eager"}
AttentionInterface.register(_NAMES["sdpa"], _observe_then(ALL_ATTENTION_FUNCTIONS["sdpa"]))
AttentionInterface.register(_NAMES["eager"], _observe_then(_own_eager))
# Without a mask function of the same name transformers drops the mask silently, left padding included.
AttentionMaskInterface.register(_NAMES["sdpa"], sdpa_mask)
AttentionMaskInterface.register(_NAMES["eager"], eager_mask)


@contextlib.contextmanager
def reading_attention(model: Any, anatomy: Anatomy, read: Callable[[int, nn.Module, LastRow], None]) -> Iterator[None]:
    """Call `read(layer, output projection, last row)` in every softmax attention of the decoder layers.

    The attention implementation of the decoder is exchanged for one that observes and then calls the model's own; it is
    put back on leaving, also after an exception. Calls from outside the decoder layers are ignored. The row is read
    when the output projection gets its input, which tells whether the attention's output was gated on the way.

    Raises:
        AttentionError: the model's implementation is neither sdpa nor eager, or the model does not take another.
    """
    owner = anatomy.layer_by_module()
    held: dict[nn.Module, tuple[int, LastRow, torch.Tensor]] = {}
    heard: set[nn.Module] = set()
    called: dict[int, torch.Tensor] = {}
    stack = contextlib.ExitStack()

    def dispatch(module: nn.Module, row: LastRow, given: torch.Tensor) -> None:
        layer = owner.get(id(module))
        if layer is not None:
            projection = output_projection(module)
            if layer in called:
                same = torch.equal(called[layer], row.weights)
                row = replace(row, weights=row.weights * same, unusable=_SEVERAL)
            called[layer] = row.weights
            held[projection] = layer, row, given
            if projection not in heard:
                heard.add(projection)
                # In front of a hook of the model's own, which is part of the projection then.
                stack.callback(projection.register_forward_pre_hook(fed, prepend=True).remove)

    @observer
    def fed(projection: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        if projection in held:
            layer, row, given = held.pop(projection)
            last = args[0].reshape(len(given), -1, args[0].shape[-1])[:, -1]
            read(layer, projection, apply_gate(row, projection, given, last))

    before = anatomy.text_config._attn_implementation
    if before not in _NAMES:
        raise AttentionError(
            f"{anatomy.name} runs with attention {before!r}, whose weights cannot be read; load it with sdpa or eager"
        )
    key = anatomy.attention_key
    token = _reader.set(dispatch)
    with stack:
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
