"""Logits of hidden states: products with the unembedding in float32 or better, and the ranks of entries among them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from harness.models.linear import is_plain
from harness.models.offloaded import weights_loaded
from harness.probe.precision import product_blocks, upcast, wide_product

# The number of states that are ranked at a time.
_STATES = 256
# The number of tied best entries that count. Only broken models have more, such as one whose logits are all infinite.
_MOST_TIES = 1024
# The number of lowest entry ids of `lowest_entry_logits`.
_ENTRIES = 4096


@dataclass(frozen=True, slots=True)
class Ranking:
    """The best entries of some states over the whole vocabulary.

    logits: the k largest logits in descending order, (rows, k). entries: their entries, (rows, k). targets: each
    target word's largest logit, (rows, words); -inf for a word without entries.
    """

    logits: torch.Tensor
    entries: torch.Tensor
    targets: torch.Tensor

    def in_top(self, ks: Sequence[int]) -> torch.Tensor:
        """Return True where a word's best entry is among the k best, bool (rows, words, len(ks)); never for NaN."""
        thresholds = torch.stack([self.logits[:, k - 1] for k in ks], dim=-1).unsqueeze(1)
        return (self.targets.unsqueeze(-1) >= thresholds) & self.targets.isfinite().unsqueeze(-1)


def rank(states: torch.Tensor, unembedding: nn.Module, targets: torch.Tensor, k: int) -> Ranking:
    """Return the k best entries of normed states and the largest logits of target words.

    The logits of the whole vocabulary are never in memory together.

    Args:
        states: (rows, d).
        unembedding: the model's head.
        targets: the entries of each row's words, (rows, words, entries); -1 = padding.
        k: the number of best entries.
    """
    parts = zip(torch.split(states, _STATES), torch.split(targets, _STATES), strict=True)
    rankings = [_rank(part, unembedding, part_targets, k) for part, part_targets in parts]
    return Ranking(
        torch.cat([ranking.logits for ranking in rankings]),
        torch.cat([ranking.entries for ranking in rankings]),
        torch.cat([ranking.targets for ranking in rankings]),
    )


def join_targets(tables: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return target words (rows, words, entries) of several tables below each other, padded with -1."""
    words, entries = (max(table.shape[axis] for table in tables) for axis in (1, 2))
    padding = [(0, entries - table.shape[2], 0, words - table.shape[1]) for table in tables]
    return torch.cat([nn.functional.pad(table, pad, value=-1) for table, pad in zip(tables, padding, strict=True)])


def best_entries(logits: torch.Tensor) -> torch.Tensor:
    """Return the entries that tie for the largest logit, as words for `rank`: (rows, 1, entries); -1 = padding."""
    is_best = logits == logits.amax(-1, keepdim=True)
    # NaN logits have no best entry.
    most = min(max(1, int(is_best.sum(-1).max())), _MOST_TIES)
    flags, entries = is_best.int().topk(most, dim=-1)
    return entries.masked_fill(flags == 0, -1).unsqueeze(1)


def logit_blocks(states: torch.Tensor, unembedding: nn.Module) -> Iterator[torch.Tensor]:
    """Yield the logits of consecutive entries, (rows, entries), of normed states (rows, d), in float32 or better.

    An unembedding that is more than a weight and bias is called as a module, in the model's own precision.
    """
    if not isinstance(unembedding, nn.Linear) or not is_plain(unembedding):
        yield upcast(unembedding(states.unsqueeze(1))[:, 0])
        return
    with weights_loaded(unembedding):
        start, bias = 0, unembedding.bias
        for block in product_blocks(states, unembedding.weight):
            yield block if bias is None else block + upcast(bias[start : start + block.shape[1]])
            start += block.shape[1]


def dense_logits(states: torch.Tensor, unembedding: nn.Module) -> torch.Tensor:
    """Return the complete `logit_blocks`, (rows, vocabulary)."""
    return torch.cat([*logit_blocks(states, unembedding)], dim=-1)


def lowest_entry_logits(states: torch.Tensor, unembedding: nn.Linear) -> torch.Tensor:
    """Return the logits of the 4,096 lowest entry ids in float32 or better, of normed states (rows, d)."""
    with weights_loaded(unembedding):
        weight, bias = unembedding.weight[:_ENTRIES], unembedding.bias
        logits = wide_product(states, weight)
        return logits if bias is None else logits + upcast(bias[:_ENTRIES])


def unembedding_rows(unembedding: nn.Linear, columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the unembedding rows (..., d) of entries (...) in float32 or better, and their biases if it has a bias."""
    with weights_loaded(unembedding):
        bias = unembedding.bias
        return upcast(unembedding.weight[columns]), None if bias is None else upcast(bias[columns])


def _rank(states: torch.Tensor, unembedding: nn.Module, targets: torch.Tensor, k: int) -> Ranking:
    start = 0
    best = states.new_empty((len(states), 0), dtype=torch.float32)
    entries = states.new_empty((len(states), 0), dtype=torch.long)
    of_targets = states.new_full(targets.shape[:2], -torch.inf, dtype=torch.float32)
    for block in logit_blocks(states, unembedding):
        columns = targets - start
        outside = (columns < 0) | (columns >= block.shape[1])
        logits = block.gather(1, columns.clamp(0, block.shape[1] - 1).flatten(1)).view(targets.shape)
        of_targets = torch.maximum(of_targets, logits.masked_fill(outside, -torch.inf).amax(-1))
        block_best, block_entries = block.topk(min(k, block.shape[1]), dim=-1)
        candidates = torch.cat([best, block_best], dim=-1)
        best, index = candidates.topk(min(k, candidates.shape[1]), dim=-1)
        entries = torch.cat([entries, block_entries + start], dim=-1).gather(1, index)
        start += block.shape[1]
    return Ranking(best, entries, of_targets)
