"""The words that the lens looks for in a batch, as padded tables of vocabulary entries."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from harness.probe.lens_task import KS, References, Words


class AskedWords:
    """The words of every sample of a batch: its own, then those of another sample.

    words: per sample, the vocabulary entries of each word. entries: the same as a table (samples, words, entries),
    padded with -1. known: True at its real entries. own: True at a sample's own words, (samples, words).
    """

    def __init__(self, references: References, device: torch.device) -> None:
        """Make the tables on a device."""
        self.words: list[Words] = [
            (*own, *chance) for own, chance in zip(references.own, references.chance, strict=True)
        ]
        self.entries = padded_entries(self.words).to(device)
        self.known = self.entries >= 0
        self.own = torch.zeros(self.known.shape[:2], dtype=torch.bool, device=device)
        for row, own in enumerate(references.own):
            self.own[row, : len(own)] = True

    def among(self, logits: torch.Tensor, best: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        """True where a word's best entry is among the k best, bool (rows, words, len(KS)).

        Args:
            logits: over the whole vocabulary, (rows, vocabulary).
            best: the largest of them in descending order, (rows, max(KS)).
            sample: the row of the batch that each row belongs to, (rows,).
        """
        entries = self.entries[sample]
        reference = logits.gather(1, entries.clamp(min=0).flatten(1)).view(entries.shape)
        reference = reference.masked_fill(~self.known[sample], -torch.inf).amax(-1)
        return torch.stack([reference >= best[:, k - 1 : k] for k in KS], dim=-1) & reference.isfinite().unsqueeze(-1)

    def counts(self, found: torch.Tensor) -> torch.Tensor:
        """The number of words found, int (batch, points, 2, len(KS)), own words first.

        Args:
            found: True where a word is found, (batch, points, words, len(KS)).
        """
        own = self.own[:, None, :, None]
        return torch.stack([(found & own).sum(2), (found & ~own).sum(2)], dim=2)


def padded_positions(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions of the True entries of each row, padded with 0, and which of them are real."""
    counts = mask.sum(1)
    order = mask.int().argsort(dim=1, descending=True, stable=True)[:, : int(counts.max())]
    valid = torch.arange(order.shape[1], device=mask.device) < counts.unsqueeze(1)
    return torch.where(valid, order, 0), valid


def padded_entries(words: Sequence[Sequence[tuple[int, ...]]]) -> torch.Tensor:
    """The entries of every word of every sample, (samples, words, entries); -1 = padding."""
    most_words = max([1, *(len(sample) for sample in words)])
    most_entries = max([1, *(len(word) for sample in words for word in sample)])
    table = [[[*word, *[-1] * (most_entries - len(word))] for word in sample] for sample in words]
    empty = [-1] * most_entries
    return torch.tensor([[*sample, *[empty] * (most_words - len(sample))] for sample in table])
