"""Logits of hidden states: over the whole vocabulary, and the rows of a plain unembedding for some of it."""

from __future__ import annotations

import torch
from torch import nn

from harness.models.linear import is_plain
from harness.models.offloaded import brought_in
from harness.probe.similarity import upcast

# Vocabulary entries whose rows are brought to float32 at a time.
_ENTRIES = 4096


def dense_logits(states: torch.Tensor, unembedding: nn.Module) -> torch.Tensor:
    """Logits over the whole vocabulary in float32 or better, (rows, vocabulary), of normed states (rows, d).

    A head that is not its weight is called as the model calls it, in the model's own precision.
    """
    if not isinstance(unembedding, nn.Linear) or not is_plain(unembedding):
        return upcast(unembedding(states.unsqueeze(1))[:, 0])
    with brought_in(unembedding):
        weight, bias = unembedding.weight, unembedding.bias
        if upcast(weight) is not weight:
            # A copy of the whole unembedding in float32 would be the largest tensor that a measurement makes.
            parts = [nn.functional.linear(upcast(states), upcast(part)) for part in torch.split(weight, _ENTRIES)]
            logits = torch.cat(parts, dim=-1)
            return logits if bias is None else logits + upcast(bias)
        return nn.functional.linear(upcast(states), weight, bias)


def low_logits(states: torch.Tensor, unembedding: nn.Linear) -> torch.Tensor:
    """Logits of the 4,096 lowest entries of the vocabulary in float32 or better, of normed states (rows, d)."""
    with brought_in(unembedding):
        weight, bias = unembedding.weight[:_ENTRIES], unembedding.bias
        return nn.functional.linear(upcast(states), upcast(weight), None if bias is None else upcast(bias[:_ENTRIES]))


def rows_of(unembedding: nn.Linear, columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The rows (..., d) of some entries (...) in float32 or better, and their biases where the unembedding has any."""
    with brought_in(unembedding):
        bias = unembedding.bias
        return upcast(unembedding.weight[columns]), None if bias is None else upcast(bias[columns])
