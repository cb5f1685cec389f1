"""The forward pass over whole prompts: how a model is called, and the errors of its own code in one sentence."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from harness.errors import PhaseError, is_out_of_memory
from harness.models.forward_errors import ForwardError, explain_error, refuse_autocast
from harness.models.library_messages import printable_cause
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
    with _checking_ids(vlm, inputs["input_ids"], sample_ids):
        try:
            return vlm.model(**vlm.to_device(inputs), **prompt_options(vlm.model, positions))
        except PhaseError:
            raise
        except Exception as error:  # A model's own code raises what it likes.
            explanation = None if is_out_of_memory(error) else explain_error(error, vlm, inputs, image, sample_ids)
            if explanation is None:
                raise
            raise explanation from printable_cause(error)


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
    device = next(model.parameters()).device
    return torch.arange(-positions, 0, device="cpu" if device.type == "meta" else device)


class TokenIdError(ForwardError):
    """A prompt holds a token id that the embedding has no row for; the message names id, token and rows."""


@contextlib.contextmanager
def _checking_ids(vlm: Vlm, ids: torch.Tensor, sample_ids: Sequence[str]) -> Iterator[None]:
    """Refuse token ids beyond the embedding before they are looked up in the forward pass inside the block.

    On a GPU such a look-up ends the whole process's use of the device. Some models replace the ids of image tokens
    before the look-up, so ids beyond the embedding are refused only where they reach it.
    """
    try:
        embedding = vlm.model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        embedding = None
    rows = _rows(embedding)
    beyond = (ids < 0) | (ids >= rows) if rows else torch.zeros_like(ids, dtype=torch.bool)
    if not bool(beyond.any()):
        yield
        return

    def refuse(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        looked_up = next((value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)), ids[:0])
        wrong = looked_up[(looked_up < 0) | (looked_up >= rows)].flatten()
        if not len(wrong):
            return
        token = int(wrong[0])
        having = (ids == token).any(-1).nonzero().flatten().tolist()
        sample = f" of sample {sample_ids[having[0]]}" if having else ""
        raise TokenIdError(
            f"{vlm.name}: the prompt{sample} holds the token {_text(vlm.processor, token)!r} of id {token}, and the "
            f"model's embedding ends at id {rows - 1}: use the tokenizer and the image token of this checkpoint, or "
            "save the model anew after model.resize_token_embeddings(len(processor.tokenizer))"
        )

    handle = embedding.register_forward_pre_hook(refuse, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _rows(embedding: Any) -> int:
    """Return how many ids an embedding knows; 0 where it does not say."""
    rows = getattr(embedding, "num_embeddings", None)
    if isinstance(rows, int):
        return rows
    weight = getattr(embedding, "weight", None)
    return len(weight) if isinstance(weight, torch.Tensor) and weight.ndim == 2 and weight.is_floating_point() else 0


def _text(processor: Any, token: int) -> str:
    try:
        return str(processor.tokenizer.convert_ids_to_tokens(token))
    except (IndexError, OverflowError, TypeError, ValueError):
        return "?"
