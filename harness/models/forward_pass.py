"""The forward pass over whole prompts: how a model is called, and the errors of its own code in one sentence."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from harness.errors import PhaseError, is_shortage
from harness.models.forward_errors import explained, refuse_autocast
from harness.models.library_messages import plain_cause
from harness.models.token_ids import checking_ids
from harness.models.vlm import Vlm


def forward_pass(
    vlm: Vlm, inputs: Mapping[str, Any], image: torch.Tensor, sample_ids: Sequence[str], *, positions: int = 1
) -> Any:
    """Return the model's output for a batch of whole prompts.

    Args:
        vlm: the model.
        inputs: model inputs of the batch as the processor makes them, on the CPU.
        image: image positions, bool (batch, tokens).
        sample_ids: names for messages, one a row of the batch.
        positions: how many positions, counted from the end of the prompt, need logits.

    Raises:
        ForwardError: autocast is on, or the model's own code fails; the message names cause and remedy.
        TokenIdError: a token id that is looked up lies beyond the embedding.
    """
    refuse_autocast(vlm.name, vlm.device.type)
    with checking_ids(vlm, inputs["input_ids"], sample_ids):
        try:
            return vlm.model(**vlm.given(inputs), **prompt_options(vlm.model, positions))
        except PhaseError:
            raise
        except Exception as error:  # A model's own code raises what it likes.
            explanation = None if is_shortage(error) else explained(error, vlm, inputs, image, sample_ids)
            if explanation is None:
                raise
            raise explanation from plain_cause(error)


def prompt_options(model: Any, positions: int = 1) -> dict[str, Any]:
    """Return the arguments of a forward pass over whole prompts: no cache, and logits of the last positions only.

    The positions are a tensor where the model takes one. Given a number, some models compute their last layers for
    those positions only, and no reading of the other positions exists there.
    """
    taken = inspect.signature(model.forward).parameters
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
    options: dict[str, Any] = {"use_cache": False} if open_ended or "use_cache" in taken else {}
    parameter = taken.get("logits_to_keep") or (_inner_parameter(model) if open_ended else None)
    if parameter is not None:
        options["logits_to_keep"] = _last(model, positions) if "Tensor" in str(parameter.annotation) else positions
    return options


def _inner_parameter(model: Any) -> inspect.Parameter | None:
    """Return the parameter `logits_to_keep` of the first submodule that names it; wrappers pass arguments on."""
    named = (inspect.signature(module.forward).parameters.get("logits_to_keep") for module in model.modules())
    return next((parameter for parameter in named if parameter is not None), None)


def _last(model: Any, positions: int) -> Any:
    devices = (getattr(model, "hf_device_map", None) or {}).values()
    placed = {device for device in devices if device not in ("cpu", "disk")}
    if len(placed) > 1:
        # accelerate moves tensors to the first GPU, and the last states lie on another; a slice lies on none.
        return slice(-positions, None)
    return torch.arange(-positions, 0, device=_device(model))


def _device(model: Any) -> torch.device:
    device = torch.device(next(model.parameters()).device)
    return torch.device("cpu") if device.type == "meta" else device
