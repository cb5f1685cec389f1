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
from harness.probe.unembedding import dense_logits, rows_of

Norm = Callable[[torch.Tensor], torch.Tensor]

KS = (1, 5)
BLOCK_SIZE = 512
_CHUNK = 256
# Image tokens' states of several residual points are looked at together, up to so many bytes: what must be known of one
# look before the next step makes a GPU wait, and small products are slow one by one.
_HELD_BYTES = 32 * 2**20
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


@dataclass(frozen=True, slots=True)
class _Open:
    """Image tokens that the block does not settle: which row of `found` each belongs to, (tokens,), and its state.

    `found` is what has been found so far, (points x batch, words, len(KS)).
    """

    found: torch.Tensor
    row: torch.Tensor
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
        self._rows, self._bias = rows_of(unembedding, columns)
        self._entries = _padded_entries(words, lambda entry: entry).to(device)
        place = {entry: len(self._block) + index for index, entry in enumerate(asked)}
        self._columns = _padded_entries(words, place.__getitem__).to(device)
        self._known = self._entries >= 0
        self._own = torch.zeros(self._known.shape[:2], dtype=torch.bool, device=device)
        for row, own in enumerate(task.references.own):
            self._own[row, : len(own)] = True
        self._held: list[torch.Tensor] = []
        self._found: list[torch.Tensor] = []
        self._open: list[_Open] = []
        self._last: list[torch.Tensor] = []
        self._decoded: list[torch.Tensor] = []
        self.opened = 0

    def read(self, states: torch.Tensor) -> None:
        """Take in one residual point: states (batch, tokens, d), before the final norm."""
        index = self._positions.to(states.device).unsqueeze(-1).expand(-1, -1, states.shape[-1])
        picked = torch.cat([states.gather(1, index), states[:, -1:]], dim=1).to(self._rows.device)
        self._held.append(picked)
        # The dense lens has logits over the whole vocabulary to hold instead.
        if self._task.dense or len(self._held) * picked.nbytes >= _HELD_BYTES:
            self._look_at_held()

    def hits(self) -> torch.Tensor:
        """Words found, int (batch, points, 2, len(KS)): of the sample's own words, and of another sample's."""
        self._look_at_held()
        self._decode_open()
        found = torch.cat(self._found).view(-1, *self._own.shape, len(KS)).transpose(0, 1)
        own = self._own[:, None, :, None]
        return torch.stack([(found & own).sum(2), (found & ~own).sum(2)], dim=2)

    def decoded(self) -> torch.Tensor:
        """Entries that the dense lens decodes at the image tokens, (batch, points, image tokens, k); -1 = padding."""
        return torch.stack(self._decoded, dim=1)

    def decoded_last(self) -> torch.Tensor:
        """Entries that the dense lens decodes at the last token, (batch, points, k)."""
        states = torch.cat(self._last).transpose(0, 1)
        logits = dense_logits(states.flatten(0, 1), self._head)
        return logits.topk(max(KS), dim=-1).indices.view(*states.shape[:2], -1)

    def _look_at_held(self) -> None:
        """Look at the points that are held, together; nothing where none is."""
        if not self._held:
            return
        held = torch.stack(self._held)
        self._held = []
        points, batch, _, width = held.shape
        normed = self._norm(held.view(-1, 1, width)).view(points, batch, -1, width)
        self._last.append(normed[:, :, -1])
        image = upcast(normed[:, :, :-1])
        self._found.append(self._look_densely(image) if self._task.dense else self._look(image))

    def _look_densely(self, image: torch.Tensor) -> torch.Tensor:
        """Words found over the whole vocabulary, bool (batch, words, len(KS)), of states (1, batch, tokens, d)."""
        _, batch, tokens, _ = image.shape
        logits = dense_logits(image.flatten(0, 2), self._head)
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
        """Words found, bool (points x batch, words, len(KS)), of image states (points, batch, tokens, d).

        What the block leaves open is added when it is settled.
        """
        points, batch, tokens, _ = image.shape
        logits = image @ self._rows.T
        if self._bias is not None:
            logits = logits + self._bias
        words, entries = self._columns.shape[1:]
        columns = self._columns.clamp(min=0).view(1, batch, 1, -1).expand(points, -1, tokens, -1)
        reference = logits.gather(3, columns).view(points, batch, tokens, words, entries)
        reference = reference.masked_fill(~self._known.unsqueeze(1), -torch.inf).amax(-1)
        top = logits.topk(max(KS), dim=-1).values
        thresholds = torch.stack([top[..., k - 1] for k in KS], dim=-1).unsqueeze(3)
        lead = reference.unsqueeze(-1) - thresholds
        lead = lead.masked_fill(~self._valid.view(batch, tokens, 1, 1), -torch.inf)
        unsettled = (lead >= -_SLACK * thresholds.abs().clamp(min=1.0)).flatten(0, 1)
        found = torch.zeros((points * batch, words, len(KS)), dtype=torch.bool, device=image.device)
        # The tokens where a word leads most come first: what they find closes the others.
        rank = lead.flatten(0, 1).masked_fill(~unsettled, -torch.inf).amax((2, 3))
        order = rank.flatten().argsort(descending=True, stable=True)
        while True:
            pending = (unsettled & ~found.unsqueeze(1)).flatten(2).any(-1).flatten()
            chosen = order[pending[order]]
            row, token = chosen[:_CHUNK] // tokens, chosen[:_CHUNK] % tokens
            if len(row):
                self._open.append(_Open(found, row, image.flatten(0, 1)[row, token]))
                self.opened += len(row)
            if len(chosen) <= _CHUNK:
                # Some tokens of a look stay open: those of several looks share one pass over the vocabulary.
                if sum(len(part.row) for part in self._open) >= _CHUNK:
                    self._decode_open()
                return found
            self._decode_open()
            unsettled[row, token] = False

    def exit_agreement(self, own_logits: torch.Tensor) -> torch.Tensor:
        """Whether the last token's best entry at each point is the model's own, bool (batch, points).

        Entries that tie for the first place of the model's own logits, as rounding to 16 bits makes them, all count.
        What is open for the hits is settled by the way: ask for the hits afterwards.

        Args:
            own_logits: the model's finite logits of the last token, (batch, vocabulary).
        """
        self._look_at_held()
        own_logits = own_logits.to(self._rows.device)
        states = upcast(torch.cat(self._last).transpose(0, 1))
        is_own = own_logits == own_logits.amax(-1, keepdim=True)
        # Logits that are NaN have no best entry; any will do where no row has one.
        own = is_own.any(0).nonzero().flatten() if bool(is_own.any()) else is_own.new_zeros(1, dtype=torch.long)
        weight, bias = rows_of(self._head, own)
        block = slice(0, len(self._block))
        others = states @ self._rows[block].T + (0.0 if self._bias is None else self._bias[block])
        mine = states @ weight.T + (0.0 if bias is None else bias)
        mine = mine.masked_fill(~is_own[:, None, own], -torch.inf).amax(-1)
        best = torch.maximum(mine, others.amax(-1))
        agree = torch.zeros_like(best, dtype=torch.bool)
        rows, points = (mine >= best - _SLACK * best.abs().clamp(min=1.0)).nonzero(as_tuple=True)
        agree[rows, points] = self._decode_open(states[rows, points], is_own, rows)
        return agree

    def _decode_open(
        self, last: torch.Tensor | None = None, is_own: torch.Tensor | None = None, rows: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Decode the open tokens over the whole vocabulary and add what they find, in place.

        Some last tokens' states are decoded by the way, because each reading of the whole unembedding takes its time:
        `last` (n, d), of samples `rows` (n,) whose own entries `is_own` (batch, vocabulary) tells.

        Returns:
            Whether the best entry of each of `last` is its sample's own, bool (n,).
        """
        parts, self._open = self._open, []
        if last is None:
            last = self._rows.new_empty((0, self._rows.shape[1]))
        states = torch.cat([*(part.states for part in parts), last])
        among = len(states) - len(last)
        sample = torch.cat([part.row for part in parts]) % len(self._own) if parts else None
        hits, agree = [], []
        with brought_in(self._head):
            for start in range(0, len(states), _CHUNK):
                full = dense_logits(states[start : start + _CHUNK], self._head)
                border = max(0, min(len(full), among - start))
                if sample is not None and border:
                    best = full[:border].topk(max(KS), dim=-1).values
                    hits.append(self._among(full[:border], best, sample[start : start + border]))
                if rows is not None and is_own is not None and border < len(full):
                    exits, first = full[border:], start + border - among
                    own = is_own[rows[first : first + len(exits)]]
                    agree.append(exits.masked_fill(~own, -torch.inf).amax(-1) >= exits.amax(-1))
        if hits:
            for part, hit in zip(parts, torch.split(torch.cat(hits), [len(part.row) for part in parts]), strict=True):
                counts = torch.zeros_like(part.found, dtype=torch.int32).index_add_(0, part.row, hit.int())
                part.found.logical_or_(counts > 0)
        return torch.cat(agree) if agree else self._own.new_empty(0)


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
