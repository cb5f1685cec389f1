"""The attention functions of transformers, registered a second time so that their calls can be read and changed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from harness.errors import PhaseError
from harness.models.anatomy import Anatomy
from harness.probe.attention_call import AttentionCall


class AttentionError(PhaseError):
    """The model's attention cannot be read; the message gives the reason and the remedy."""


#: Receives a layer (from 0), its attention module, the call, and the result for the last query, (batch, width).
Reader = Callable[[int, nn.Module, AttentionCall, torch.Tensor], None]
#: Returns the call that replaces a call of a layer (from 0).
Editor = Callable[[int, AttentionCall], AttentionCall]


class _Observer(NamedTuple):
    """The functions that observe calls, and the layer of each module by `id`."""

    layers: dict[int, int]
    read: Reader | None
    edit: Editor | None


_observer: ContextVar[_Observer | None] = ContextVar("phase_attention_observer", default=None)


def _observed(forward: Callable[..., Any], *, skips_causal_masks: bool) -> Callable[..., Any]:
    """Return an attention function whose calls are observed.

    With `skips_causal_masks` the function itself hides later keys if it receives no mask and its module is causal.
    """

    def attend(
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **kwargs: Any,
    ) -> Any:
        observer = _observer.get()
        layer = None if observer is None else observer.layers.get(id(module))
        if observer is None or layer is None:
            return forward(module, query, key, value, attention_mask, **kwargs)
        declared = kwargs.get("is_causal")
        causal = getattr(module, "is_causal", True) if declared is None else declared
        call = AttentionCall(
            query,
            key,
            value,
            attention_mask,
            kwargs.get("scaling"),
            kwargs.get("softcap"),
            kwargs.get("position_bias"),
            kwargs.get("sinks", kwargs.get("s_aux")),
            causal=skips_causal_masks and bool(causal) and query.shape[2] > 1,
        )
        if observer.edit is not None:
            call = observer.edit(layer, call)
        result = forward(module, call.query, call.key, call.value, call.mask, **kwargs)
        if observer.read is not None:
            observer.read(layer, module, call, result[0][:, -1].flatten(1))
        return result

    return attend


def _model_eager(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    return sys.modules[type(module).__module__].eager_attention_forward(module, *args, **kwargs)


_OBSERVED_NAMES = {"sdpa": "phase_sdpa", "eager": "phase_eager"}
AttentionInterface.register(
    _OBSERVED_NAMES["sdpa"], _observed(ALL_ATTENTION_FUNCTIONS["sdpa"], skips_causal_masks=True)
)
AttentionInterface.register(_OBSERVED_NAMES["eager"], _observed(_model_eager, skips_causal_masks=False))
# Without a mask function of the same name transformers drops the mask silently, left padding included.
AttentionMaskInterface.register(_OBSERVED_NAMES["sdpa"], sdpa_mask)
AttentionMaskInterface.register(_OBSERVED_NAMES["eager"], eager_mask)


@contextlib.contextmanager
def attention_calls(
    model: Any, anatomy: Anatomy, *, read: Reader | None = None, edit: Editor | None = None
) -> Iterator[None]:
    """Observe the attention calls of the decoder layers inside the block; calls from elsewhere are not observed.

    The attention implementation of the decoder is replaced by one that calls the original. It is restored on leaving,
    also after an exception.

    Raises:
        AttentionError: the model's implementation is neither sdpa nor eager, or the model does not accept another.
    """
    original = anatomy.text_config._attn_implementation
    if original not in _OBSERVED_NAMES:
        raise AttentionError(
            f"{anatomy.name} runs with attention {original!r}, whose weights cannot be read: load it with sdpa or eager"
        )
    key = anatomy.attention_key
    token = _observer.set(_Observer(anatomy.layer_by_module(), read, edit))
    try:
        model.set_attn_implementation({key: _OBSERVED_NAMES[original]})
        if anatomy.text_config._attn_implementation != _OBSERVED_NAMES[original]:
            raise AttentionError(f"{anatomy.name} does not accept another attention function (AttentionInterface)")
        yield
    finally:
        _observer.reset(token)
        model.set_attn_implementation({key: original})
