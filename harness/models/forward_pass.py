"""The forward pass over complete prompts, with explained errors of the model's code."""

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
    vlm: Vlm,
    inputs: Mapping[str, Any],
    image: torch.Tensor,
    sample_ids: Sequence[str],
    *,
    positions: int = 1,
    keys_and_values: bool = False,
) -> Any:
    """Return the model's output for a batch of complete prompts.

    Args:
        vlm: the model.
        inputs: the model inputs of the batch from the processor, on the CPU.
        image: the mask of image positions, bool (batch, tokens).
        sample_ids: the sample id of each row, for messages.
        positions: the number of last positions that need logits.
        keys_and_values: True to let the model keep its key-value cache.

    Raises:
        ForwardError: autocast is on, or the model's code fails; the message names cause and remedy.
        TokenIdError: a token id has no row in the embedding.
    """
    refuse_autocast(vlm.name, vlm.device.type)
    with _checking_ids(vlm, inputs["input_ids"], sample_ids):
        try:
            options = prompt_options(vlm.model, positions) | ({"use_cache": True} if keys_and_values else {})
            return vlm.model(**vlm.to_device(inputs), **options)
        except PhaseError:
            raise
        except Exception as error:  # The model's code may raise any type.
            explanation = None if is_out_of_memory(error) else explain_error(error, vlm, inputs, image, sample_ids)
            if explanation is None:
                raise
            raise explanation from printable_cause(error)


def prompt_options(model: Any, positions: int = 1) -> dict[str, Any]:
    """Return the options of a forward pass over complete prompts: no cache, and logits of the last positions only.

    The positions are a tensor if the model accepts one. Given a number, some models skip all other positions in their
    last layers, and those positions could not be measured there.
    """
    parameters = inspect.signature(model.forward).parameters
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    options: dict[str, Any] = {"use_cache": False} if open_ended or "use_cache" in parameters else {}
    parameter = parameters.get("logits_to_keep") or (_inner_parameter(model) if open_ended else None)
    if parameter is not None:
        options["logits_to_keep"] = (
            _last_positions(model, positions) if "Tensor" in str(parameter.annotation) else positions
        )
    return options


def _inner_parameter(model: Any) -> inspect.Parameter | None:
    """Return the parameter `logits_to_keep` of the first submodule that has it; wrappers pass arguments to it."""
    # Reading a signature takes as long as a small layer, and most modules share theirs.
    forwards = dict.fromkeys(getattr(module.forward, "__func__", module.forward) for module in model.modules())
    named = (inspect.signature(forward).parameters.get("logits_to_keep") for forward in forwards)
    return next((parameter for parameter in named if parameter is not None), None)


def _last_positions(model: Any, positions: int) -> Any:
    devices = (getattr(model, "hf_device_map", None) or {}).values()
    placed = {device for device in devices if device not in ("cpu", "disk")}
    if len(placed) > 1:
        # accelerate would move a tensor to the first GPU, but the last states are on another. A slice has no device.
        return slice(-positions, None)
    device = next(model.parameters()).device
    return torch.arange(-positions, 0, device="cpu" if device.type == "meta" else device)


class TokenIdError(ForwardError):
    """A prompt contains a token id without a row in the embedding; the message names id, token and last id."""


@contextlib.contextmanager
def _checking_ids(vlm: Vlm, ids: torch.Tensor, sample_ids: Sequence[str]) -> Iterator[None]:
    """Raise `TokenIdError` if the forward pass inside the block looks up a token id beyond the embedding.

    On a GPU such a look-up makes the device unusable for the rest of the process. Some models replace the ids of image
    tokens before the look-up, so only ids that reach the embedding are checked.
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
        invalid = looked_up[(looked_up < 0) | (looked_up >= rows)].flatten()
        if not len(invalid):
            return
        token = int(invalid[0])
        rows_with_token = (ids == token).any(-1).nonzero().flatten().tolist()
        sample = f" of sample {sample_ids[rows_with_token[0]]}" if rows_with_token else ""
        raise TokenIdError(
            f"{vlm.name}: the prompt{sample} contains the token {_text(vlm.processor, token)!r} with id {token}, and "
            f"the model's embedding ends at id {rows - 1}: use this checkpoint's tokenizer and image token, or "
            "save the model again after model.resize_token_embeddings(len(processor.tokenizer))"
        )

    handle = embedding.register_forward_pre_hook(refuse, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _rows(embedding: Any) -> int:
    """Return the number of rows of an embedding; 0 if it is unknown."""
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
