"""Token ids against the rows of the embedding that looks them up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from harness.models.forward_errors import ForwardError
from harness.models.vlm import Vlm


class TokenIdError(ForwardError):
    """A prompt holds a token id that the embedding has no row for; the message names id, token and rows."""


@contextlib.contextmanager
def checking_ids(vlm: Vlm, ids: torch.Tensor, sample_ids: Sequence[str]) -> Iterator[None]:
    """Refuse token ids beyond the embedding before they are looked up in the forward pass inside the block.

    On a GPU such a look-up ends the whole process's use of the device. Some models replace the ids of image tokens
    before the look-up, so ids beyond the embedding are refused only where they reach it.

    Args:
        vlm: the model.
        ids: token ids, int (batch, tokens).
        sample_ids: names for messages, one a row of the batch.

    Raises:
        TokenIdError: an id beyond the embedding reaches it.
    """
    embedding = _embedding(vlm.model)
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


def _embedding(model: Any) -> Any:
    try:
        return model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None


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
