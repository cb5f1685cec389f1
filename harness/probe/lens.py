"""LogitLens at the image tokens and at the last token: exact recall without decoding over the whole vocabulary.

Recall asks only whether a word is among the k best entries of some image token. Once k entries of a small block of
often decoded ones beat the word's best logit, the token is settled; the whole vocabulary is read for the tokens that
stay open, and no longer than until the word is found. The answers are those of the dense lens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from harness.models.offloaded import brought_in
from harness.probe.similarity import upcast

Norm = Callable[[torch.Tensor], torch.Tensor]

KS = (1, 5)
BLOCK_SIZE = 512
_CHUNK = 256
# A token is settled by the block only if it is clearly beaten there: matrix products of different shapes round
# differently, and what is closer than this is left to the whole vocabulary.
_SLACK = 1e-4


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


def learn_block(decoded: torch.Tensor, vocabulary_size: int, size: int = BLOCK_SIZE) -> tuple[int, ...]:
    """The entries decoded most often, filled up with the lowest ids; which they are changes the speed, never a hit.

    Args:
        decoded: vocabulary entries that a dense lens decoded, any shape.
        vocabulary_size: number of rows of the unembedding.
        size: how many entries.
    """
    counts = Counter(decoded.flatten().tolist())
    block = [entry for entry, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))][:size]
    chosen = set(block)
    fill = (entry for entry in range(vocabulary_size) if entry not in chosen)
    return tuple(block + [entry for entry, _ in zip(fill, range(size - len(block)), strict=False)])


def dense_logits(states: torch.Tensor, unembedding: nn.Linear) -> torch.Tensor:
    """Logits over the whole vocabulary in float32 or better, (rows, vocabulary), of normed states (rows, d)."""
    with brought_in(unembedding):
        bias = None if unembedding.bias is None else upcast(unembedding.bias)
        return nn.functional.linear(upcast(states), upcast(unembedding.weight), bias)


@dataclass(frozen=True, slots=True)
class _Open:
    """Image tokens of one residual point that the block does not settle: whose they are, (rows,), and their states.

    `found` is what their point has found so far, (batch, words, len(KS)).
    """

    found: torch.Tensor
    sample: torch.Tensor
    states: torch.Tensor


class Lens:
    """Answers a `LensTask` for one batch, residual point by residual point."""

    def __init__(self, task: LensTask, image: torch.Tensor, unembedding: nn.Linear, norm: Norm) -> None:
        """Prepare for a batch.

        Args:
            task: the words and the block.
            image: positions of the image tokens, bool (batch, tokens).
            unembedding: the model's head; its bias is part of the logits.
            norm: applies the final norm to (rows, 1, d).
        """
        self._task, self._head, self._norm = task, unembedding, norm
        with brought_in(unembedding):
            device = unembedding.weight.device
        self._positions, self._valid = _padded_positions(image.to(device))
        words = [[*own, *chance] for own, chance in zip(task.references.own, task.references.chance, strict=True)]
        asked = sorted({entry for sample in words for word in sample for entry in word})
        # The lowest ids are always in it, so that there are k entries to be beaten by.
        block = {*task.block, *range(max(KS))} - set(asked)
        self._block = torch.tensor(sorted(block), dtype=torch.long, device=device)
        columns = torch.cat([self._block, torch.tensor(asked, dtype=torch.long, device=device)])
        self._rows, self._bias = _rows(unembedding, columns)
        self._entries = _padded_entries(words, lambda entry: entry).to(device)
        place = {entry: len(self._block) + index for index, entry in enumerate(asked)}
        self._columns = _padded_entries(words, place.__getitem__).to(device)
        self._known = self._entries >= 0
        self._own = torch.zeros(self._known.shape[:2], dtype=torch.bool, device=device)
        for row, own in enumerate(task.references.own):
            self._own[row, : len(own)] = True
        self._found: list[torch.Tensor] = []
        self._open: list[_Open] = []
        self._last: list[torch.Tensor] = []
        self._decoded: list[torch.Tensor] = []
        self.opened = 0

    def read(self, states: torch.Tensor) -> None:
        """Take in one residual point: states (batch, tokens, d), before the final norm."""
        batch, _, width = states.shape
        index = self._positions.to(states.device).unsqueeze(-1).expand(-1, -1, width)
        picked = torch.cat([states.gather(1, index), states[:, -1:]], dim=1)
        normed = self._norm(picked.reshape(-1, 1, width)).reshape(batch, -1, width).to(self._rows.device)
        self._last.append(normed[:, -1])
        image = upcast(normed[:, :-1])
        self._found.append(self._look_densely(image) if self._task.dense else self._look(image))

    def hits(self) -> torch.Tensor:
        """Words found, int (batch, points, 2, len(KS)): of the sample's own words, and of another sample's."""
        self._settle()
        found = torch.stack(self._found, dim=1)
        own = self._own[:, None, :, None]
        return torch.stack([(found & own).sum(2), (found & ~own).sum(2)], dim=2)

    def decoded(self) -> torch.Tensor:
        """Entries that the dense lens decodes at the image tokens, (batch, points, image tokens, k); -1 = padding."""
        return torch.stack(self._decoded, dim=1)

    def decoded_last(self) -> torch.Tensor:
        """Entries that the dense lens decodes at the last token, (batch, points, k)."""
        states = torch.stack(self._last, dim=1)
        logits = dense_logits(states.flatten(0, 1), self._head)
        return logits.topk(max(KS), dim=-1).indices.view(*states.shape[:2], -1)

    def exit_agreement(self, own_logits: torch.Tensor) -> torch.Tensor:
        """Whether the last token's best entry at each point is the model's own, bool (batch, points).

        Entries that tie for the first place of the model's own logits, as rounding to 16 bits makes them, all count.

        Args:
            own_logits: the model's finite logits of the last token, (batch, vocabulary).
        """
        states = upcast(torch.stack(self._last, dim=1))
        own_logits = own_logits.to(states.device)
        is_own = own_logits == own_logits.amax(-1, keepdim=True)
        own = is_own.any(0).nonzero().flatten()
        columns = torch.cat([self._block, own])
        weight, bias = _rows(self._head, columns)
        logits = states @ weight.T + (0.0 if bias is None else bias)
        mine = logits[..., len(self._block) :].masked_fill(~is_own[:, None, own], -torch.inf).amax(-1)
        best = logits.amax(-1)
        agree = torch.zeros_like(best, dtype=torch.bool)
        rows, points = (mine >= best - _SLACK * best.abs().clamp(min=1.0)).nonzero(as_tuple=True)
        with brought_in(self._head):
            for at in range(0, len(rows), _CHUNK):
                row, point = rows[at : at + _CHUNK], points[at : at + _CHUNK]
                full = dense_logits(states[row, point], self._head)
                agree[row, point] = full.masked_fill(~is_own[row], -torch.inf).amax(-1) >= full.amax(-1)
        return agree

    def _look_densely(self, image: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = image.shape
        logits = dense_logits(image.reshape(-1, width), self._head)
        best, entries = logits.topk(max(KS), dim=-1)
        self._decoded.append(entries.view(batch, tokens, -1).masked_fill(~self._valid.unsqueeze(-1), -1))
        sample = torch.arange(batch, device=image.device).repeat_interleave(tokens)
        hit = self._among(logits, best, sample).view(batch, tokens, -1, len(KS))
        return (hit & self._valid.view(batch, tokens, 1, 1)).any(1)

    def _among(self, logits: torch.Tensor, best: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        """Whether each word's best entry is among the k best, bool (rows, words, len(KS))."""
        entries = self._entries[sample]
        reference = logits.gather(1, entries.clamp(min=0).flatten(1)).view(entries.shape)
        reference = reference.masked_fill(~self._known[sample], -torch.inf).amax(-1)
        return torch.stack([reference >= best[:, k - 1 : k] for k in KS], dim=-1) & reference.isfinite().unsqueeze(-1)

    def _look(self, image: torch.Tensor) -> torch.Tensor:
        """Words found in the block, bool (batch, words, len(KS)); what it leaves open is added when it is settled."""
        batch, tokens, _ = image.shape
        logits = image @ self._rows.T
        if self._bias is not None:
            logits = logits + self._bias
        words, entries = self._columns.shape[1:]
        columns = self._columns.clamp(min=0).view(batch, 1, -1).expand(-1, tokens, -1)
        reference = logits.gather(2, columns).view(batch, tokens, words, entries)
        reference = reference.masked_fill(~self._known.unsqueeze(1), -torch.inf).amax(-1)
        top = logits.topk(max(KS), dim=-1).values
        thresholds = torch.stack([top[..., k - 1] for k in KS], dim=-1).unsqueeze(2)
        lead = reference.unsqueeze(-1) - thresholds
        lead = torch.where(self._valid.view(batch, tokens, 1, 1), lead, -torch.inf)
        unsettled = lead >= -_SLACK * thresholds.abs().clamp(min=1.0)
        found = torch.zeros((batch, words, len(KS)), dtype=torch.bool, device=image.device)
        # The tokens where a word leads most come first: what they find closes the others.
        rank = torch.where(unsettled, lead, -torch.inf).amax((2, 3))
        order = rank.flatten().argsort(descending=True, stable=True)
        while True:
            pending = (unsettled & ~found.unsqueeze(1)).flatten(2).any(-1).flatten()
            chosen = order[pending[order]]
            sample, token = chosen[:_CHUNK] // tokens, chosen[:_CHUNK] % tokens
            if len(sample):
                self._open.append(_Open(found, sample, image[sample, token]))
                self.opened += len(sample)
            if len(chosen) <= _CHUNK:
                # A few tokens a layer are open: those of several layers share one pass over the vocabulary.
                if sum(len(part.sample) for part in self._open) >= _CHUNK:
                    self._settle()
                return found
            self._settle()
            unsettled[sample, token] = False

    def _settle(self) -> None:
        """Decode the open tokens over the whole vocabulary and add what they find, in place."""
        if not self._open:
            return
        sample = torch.cat([part.sample for part in self._open])
        states = torch.cat([part.states for part in self._open])
        hits = []
        with brought_in(self._head):
            for rows, of in zip(torch.split(states, _CHUNK), torch.split(sample, _CHUNK), strict=True):
                full = dense_logits(rows, self._head)
                hits.append(self._among(full, full.topk(max(KS), dim=-1).values, of))
        sizes = [len(part.sample) for part in self._open]
        for part, hit in zip(self._open, torch.split(torch.cat(hits), sizes), strict=True):
            counts = torch.zeros_like(part.found, dtype=torch.int32).index_add_(0, part.sample, hit.int())
            part.found.logical_or_(counts > 0)
        self._open = []


def _rows(unembedding: nn.Linear, columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Some entries' rows of the unembedding in float32 or better, and their biases where it has any."""
    with brought_in(unembedding):
        bias = unembedding.bias
        return upcast(unembedding.weight[columns]), None if bias is None else upcast(bias[columns])


def _padded_positions(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions of the True entries of each row, padded with 0, and which of them are real."""
    counts = mask.sum(1)
    order = mask.int().argsort(dim=1, descending=True, stable=True)[:, : int(counts.max())]
    valid = torch.arange(order.shape[1], device=mask.device) < counts.unsqueeze(1)
    return torch.where(valid, order, 0), valid


def _padded_entries(words: Sequence[Sequence[tuple[int, ...]]], of: Callable[[int], int]) -> torch.Tensor:
    most_words = max([1, *(len(sample) for sample in words)])
    most_entries = max([1, *(len(word) for sample in words for word in sample)])
    table = torch.full((len(words), most_words, most_entries), -1, dtype=torch.long)
    for row, sample in enumerate(words):
        for column, word in enumerate(sample):
            table[row, column, : len(word)] = torch.tensor([of(entry) for entry in word], dtype=torch.long)
    return table
