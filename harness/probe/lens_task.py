"""What LogitLens is to answer for a batch: the words asked for, and the entries that most often beat them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch

KS = (1, 5)
BLOCK_SIZE = 256

#: The vocabulary entries of every word of one sample.
Words = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class References:
    """The vocabulary entries of the words asked for, per sample: of its own words, and of another sample's."""

    own: tuple[Words, ...]
    chance: tuple[Words, ...]


@dataclass(frozen=True, slots=True)
class LensTask:
    """What the lens is to answer for a batch: which words, with which block; `dense` decodes every image token."""

    references: References
    block: tuple[int, ...]
    dense: bool = False


def learn_block(
    decoded: torch.Tensor, vocabulary_size: int, size: int = BLOCK_SIZE, last: torch.Tensor | None = None
) -> tuple[int, ...]:
    """The entries decoded most often, filled up with the lowest ids; which they are changes the speed, never a hit.

    Args:
        decoded: vocabulary entries that a dense lens decoded at image tokens, any shape; -1 is none.
        vocabulary_size: number of rows of the unembedding.
        size: how many entries.
        last: those that it decoded at last tokens, which are others: a quarter of the block is theirs.
    """
    exits = [] if last is None else _commonest(last, size // 4)
    block = list(dict.fromkeys([*exits, *_commonest(decoded, size)]))[:size]
    chosen = set(block)
    fill = (entry for entry in range(vocabulary_size) if entry not in chosen)
    return tuple(block + [entry for entry, _ in zip(fill, range(size - len(block)), strict=False)])


def _commonest(decoded: torch.Tensor, size: int) -> list[int]:
    counts = Counter(decoded[decoded >= 0].flatten().tolist())
    return [entry for entry, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))][:size]
