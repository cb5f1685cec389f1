"""Checks of a single forward pass: the tokens that its attention sees, and the logits that it gives."""

from __future__ import annotations

import torch

from harness.probe.self_checks import TOLERANCE, SelfCheckError

OWN_TOKENS = (
    "the model adds tokens of its own, as prompt tuning, prefix tuning or a cache does, and they belong to no group of "
    "tokens: measure it without them, or train an adapter that changes weights (LoRA)"
)


def check_tokens_seen(name: str, layer: int, keys: int, tokens: int) -> None:
    """Assert that the attention of a layer, counted from 0, sees no more tokens than the prompts have.

    Raises:
        SelfCheckError: with both numbers.
    """
    if keys > tokens:
        raise SelfCheckError(
            f"{name}, layer {layer + 1}: attention sees {keys} tokens where the prompts have {tokens}; {OWN_TOKENS}"
        )


def check_logits_differ(name: str, logits: torch.Tensor) -> None:
    """Assert that the logits of a batch, (batch, vocabulary), are not all equal, as those of a head of zeros are.

    Raises:
        SelfCheckError: with their value.
    """
    if bool((logits == logits[:, :1]).all()):
        raise SelfCheckError(
            f"{name}: all logits of the model are {float(logits[0, 0]):.6g}, so no entry is the best; its weights are "
            "zero or were not loaded: copy the checkpoint again"
        )


def check_output(name: str, logits: torch.Tensor, given: torch.Tensor) -> None:
    """Assert that the model gives the best entry that its head gives, but for entries that it never lets win.

    Args:
        name: for the message.
        logits: of the last token as the head gives them, (batch, vocabulary).
        given: of the last token as the model gives them, (batch, vocabulary). They may be scaled or capped.

    Raises:
        SelfCheckError: with the number of samples whose best entry is another.
    """
    logits, given = logits.float(), given.float().to(logits.device)
    barred = given <= torch.finfo(torch.float16).min
    at_head = given.gather(-1, logits.masked_fill(barred, -torch.inf).argmax(-1, keepdim=True)).squeeze(-1)
    largest = given.abs().masked_fill(barred, 0).amax(-1)
    changed = int((given.amax(-1) - at_head > TOLERANCE[torch.float32] * largest).sum())
    if changed:
        raise SelfCheckError(
            f"{name}: another logit than the head's largest is the largest of the model's output in {changed} of "
            f"{len(given)} samples, so something changes logits behind the head: remove the hook or wrapper that does"
        )
