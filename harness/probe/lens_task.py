"""The LogitLens task of a batch: target words, and a block of often decoded entries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

KS = (1, 5)
BLOCK_SIZE = 256
_PARTS = 4

#: The vocabulary entries of every word of one sample.
Words = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class References:
    """Vocabulary entries of the target words, per sample: its own words, and another sample's as chance level."""

    words: tuple[Words, ...]
    chance_words: tuple[Words, ...]


@dataclass(frozen=True, slots=True)
class LensTask:
    """The words that the lens looks for and the block it uses; `dense` decodes every image token.

    A dense task with `points` decodes only these residual points, in ascending order and with the last one.
    """

    references: References
    block: tuple[int, ...]
    dense: bool = False
    points: tuple[int, ...] = ()


def spread_points(depth: int) -> tuple[int, ...]:
    """Return five residual points, the ends of four equal parts of the depth, for a `LensTask`; fewer below depth 4.

    A block learned from them leaves as few tokens open as a block learned from all points.
    """
    return tuple(sorted({round(depth * part / _PARTS) for part in range(_PARTS + 1)}))


def learn_block(
    decoded: torch.Tensor, vocabulary_size: int, size: int = BLOCK_SIZE, last: torch.Tensor | None = None
) -> tuple[int, ...]:
    """Return the entries decoded most often, filled up with the lowest ids.

    The choice of block affects speed only; the hits are identical.

    Args:
        decoded: vocabulary entries that a dense lens decoded at image tokens, any shape; -1 = padding.
        vocabulary_size: number of rows of the unembedding.
        size: number of entries of the block.
        last: entries decoded at last tokens; they differ from those at image tokens and get a quarter of the block.
    """
    exits = [] if last is None else _commonest(last, size // 4)
    block = list(dict.fromkeys([*exits, *_commonest(decoded, size)]))[:size]
    chosen = set(block)
    fill = (entry for entry in range(vocabulary_size) if entry not in chosen)
    return tuple(block + [entry for entry, _ in zip(fill, range(size - len(block)), strict=False)])


def _commonest(decoded: torch.Tensor, size: int) -> list[int]:
    counts = Counter(decoded[decoded >= 0].flatten().tolist())
    return [entry for entry, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))][:size]


class TargetWords:
    """The words of every sample of a batch: its own, then those of another sample.

    words: per sample, the vocabulary entries of each word. entries: the same as a table (samples, words, entries),
    padded with -1. known: True at its real entries. is_own: True at a sample's own words, (samples, words).
    """

    def __init__(self, references: References, device: torch.device) -> None:
        """Create the tables on a device."""
        self.words: list[Words] = [
            (*sample_words, *other_words)
            for sample_words, other_words in zip(references.words, references.chance_words, strict=True)
        ]
        self.entries = padded_entries(self.words).to(device)
        self.known = self.entries >= 0
        self.is_own = torch.zeros(self.known.shape[:2], dtype=torch.bool, device=device)
        for row, sample_words in enumerate(references.words):
            self.is_own[row, : len(sample_words)] = True

    def count_hits(self, hits: torch.Tensor) -> torch.Tensor:
        """Return the number of words found, int (batch, points, 2, len(KS)), own words first.

        Args:
            hits: True where a word is found, (batch, points, words, len(KS)).
        """
        is_own = self.is_own[:, None, :, None]
        return torch.stack([(hits & is_own).sum(2), (hits & ~is_own).sum(2)], dim=2)


def padded_positions(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the positions of the True entries of each row, padded with 0, and a mask that is False at padding."""
    counts = mask.sum(1)
    order = mask.int().argsort(dim=1, descending=True, stable=True)[:, : int(counts.max())]
    valid = torch.arange(order.shape[1], device=mask.device) < counts.unsqueeze(1)
    return torch.where(valid, order, 0), valid


def padded_entries(words: Sequence[Sequence[tuple[int, ...]]]) -> torch.Tensor:
    """Return the entries of every word of every sample, (samples, words, entries); -1 = padding."""
    most_words = max([1, *(len(sample) for sample in words)])
    most_entries = max([1, *(len(word) for sample in words for word in sample)])
    table = [[[*word, *[-1] * (most_entries - len(word))] for word in sample] for sample in words]
    empty = [-1] * most_entries
    return torch.tensor([[*sample, *[empty] * (most_words - len(sample))] for sample in table])
