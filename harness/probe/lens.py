"""LogitLens at the image tokens and at the last token: exact recall without decoding over the whole vocabulary.

Recall asks only whether a word is among the k best entries of some image token. Once k entries of a small block of
often decoded ones beat the word's best logit, the token is settled; the whole vocabulary is read for the tokens that
stay open, and no longer than until the word is found. The answers are those of the dense lens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from harness.models.linear import is_plain
from harness.models.offloaded import weights_loaded
from harness.probe.dense_lens import DenseLens, Norm, dense_logits, lowest_entry_logits, unembedding_rows
from harness.probe.lens_task import KS, LensTask, TargetWords, padded_entries, padded_positions
from harness.probe.similarity import upcast

_CHUNK = 256
_SIEVED = 1024
# Image tokens' states of several residual points are looked at together: what must be known of one look before the next
# step makes a GPU wait, and small products are slow one by one. So much of the unembedding's size is held at most.
_HELD_SHARE, _HELD_LEAST = 1 / 8, 2**20
# A token is settled by the block only if it is clearly beaten there: matrix products of different shapes round
# differently, and what is closer than this is left to the whole vocabulary.
_SLACK = 1e-4


@dataclass(frozen=True, slots=True)
class _Open:
    """Image tokens that the block does not settle: whose they are, (tokens,), and their states (tokens, d).

    `found` is what has been found so far, (batch x points, words, len(KS)), `row` which row of it a token belongs to,
    `sample` which row of the batch.
    """

    found: torch.Tensor
    row: torch.Tensor
    sample: torch.Tensor
    states: torch.Tensor


class Lens:
    """Answers a `LensTask` for one batch, residual point by residual point, by rows of a plain head's weight."""

    def __init__(self, task: LensTask, image: torch.Tensor, unembedding: nn.Linear, norm: Norm) -> None:
        """Prepare for a batch.

        Args:
            task: the words and the block.
            image: positions of the image tokens, bool (batch, tokens).
            unembedding: the model's head; its bias is part of the logits.
            norm: applies the final norm to (rows, 1, d).
        """
        self._head, self._norm = unembedding, norm
        with weights_loaded(unembedding):
            device = unembedding.weight.device
        self._positions, self._valid = padded_positions(image.to(device))
        self._words = TargetWords(task.references, device)
        words = self._words.words
        asked = [sorted({entry for word in sample for entry in word}) for sample in words]
        # What any sample asks for is no part of the block, so that no entry counts against itself. The lowest ids are
        # always in it, so that there are k entries to be beaten by.
        block = {*task.block, *range(max(KS))}.difference(*asked)
        self._rows, self._bias = unembedding_rows(
            unembedding, torch.tensor(sorted(block), dtype=torch.long, device=device)
        )
        # What a sample asks for is looked up for that sample alone, padded to as many entries as any of them has.
        most = max(1, *map(len, asked))
        padded = torch.tensor([entries + [0] * (most - len(entries)) for entries in asked], device=device)
        self._asked, self._asked_bias = unembedding_rows(unembedding, padded)
        self._padding = torch.tensor([[k >= len(entries) for k in range(most)] for entries in asked], device=device)
        self._columns = padded_entries(
            [[tuple(map(own.index, word)) for word in sample] for own, sample in zip(asked, words, strict=True)]
        ).to(device)
        self._held: list[torch.Tensor] = []
        self._held_last: list[torch.Tensor] = []
        self._most_held = max(unembedding.weight.nbytes * _HELD_SHARE, _HELD_LEAST)
        self._found: list[torch.Tensor] = []
        self._open: list[_Open] = []
        self._last: list[torch.Tensor] = []
        self.opened = 0

    def read(self, states: torch.Tensor) -> None:
        """Take in one residual point: states (batch, tokens, d), before the final norm."""
        index = self._positions.to(states.device).unsqueeze(-1).expand(-1, -1, states.shape[-1])
        self._held.append(states.gather(1, index).to(self._rows.device))
        # A copy, because a view would keep all of the states.
        self._held_last.append(states[:, -1:].clone().to(self._rows.device))
        if len(self._held) * self._held[0].nbytes >= self._most_held:
            self._look_at_held()

    def hits(self) -> torch.Tensor:
        """Words found, int (batch, points, 2, len(KS)): of the sample's own words, and of another sample's."""
        self._look_at_held()
        self._decode_open()
        batch, words = self._words.is_own.shape
        return self._words.count_hits(torch.cat([part.view(batch, -1, words, len(KS)) for part in self._found], dim=1))

    def last_logits(self) -> torch.Tensor:
        """Logits of the last token at the point read last, (batch, vocabulary) in float32 or better."""
        self._look_at_held()
        return dense_logits(self._last[-1][:, -1, 0], self._head)

    def _look_at_held(self) -> None:
        if not self._held:
            return
        self._last.append(self._normed(self._held_last))
        self._found.append(self._look(upcast(self._normed(self._held))))

    def _normed(self, points: list[torch.Tensor]) -> torch.Tensor:
        """The states of several points behind the final norm, (batch, points, tokens, d); `points` is empty then."""
        held = torch.stack(points, dim=1)
        points.clear()
        return self._norm(held.view(-1, 1, held.shape[-1])).view(held.shape)

    def _look(self, image: torch.Tensor) -> torch.Tensor:
        """Words found, bool (batch x points, words, len(KS)), of image states (batch, points, tokens, d).

        What the block leaves open is added when it is settled.
        """
        batch, points, tokens, width = image.shape
        asked = torch.bmm(image.view(batch, -1, width), self._asked.transpose(1, 2))
        logits = image.view(-1, width) @ self._rows.T
        if self._bias is not None and self._asked_bias is not None:
            asked, logits = asked + self._asked_bias.unsqueeze(1), logits + self._bias
        words, entries = self._columns.shape[1:]
        columns = self._columns.clamp(min=0).view(batch, 1, -1).expand(-1, points * tokens, -1)
        reference = asked.gather(2, columns).view(batch, -1, words, entries)
        reference = reference.masked_fill(~self._words.known.unsqueeze(1), -torch.inf).amax(-1).view(-1, tokens, words)
        asked = asked.masked_fill(self._padding.unsqueeze(1), -torch.inf).view(len(logits), -1)
        top = _thresholds(logits, asked).view(-1, tokens, 1, len(KS))
        lead = reference.unsqueeze(-1) - top
        valid = self._valid.unsqueeze(1).expand(-1, points, -1).reshape(-1, tokens, 1, 1)
        unsettled = (lead >= -_slack(top)) & valid
        self._sieve(image.view(-1, tokens, width), reference, unsettled)
        found = torch.zeros((batch * points, words, len(KS)), dtype=torch.bool, device=image.device)
        # The tokens where a word leads most come first: what they find closes the others.
        rank = lead.masked_fill(~unsettled, -torch.inf).amax((2, 3))
        order = rank.flatten().argsort(descending=True, stable=True)
        while True:
            pending = (unsettled & ~found.unsqueeze(1)).flatten(2).any(-1).flatten()
            chosen = order[pending[order]]
            row, token = chosen[:_CHUNK] // tokens, chosen[:_CHUNK] % tokens
            if len(row):
                self._open.append(_Open(found, row, row // points, image.view(-1, tokens, width)[row, token]))
                self.opened += len(row)
            if len(chosen) <= _CHUNK:
                # Some tokens of a look stay open: those of several looks share one pass over the vocabulary.
                if sum(len(part.row) for part in self._open) >= _CHUNK:
                    self._decode_open()
                return found
            self._decode_open()
            unsettled[row, token] = False

    def _sieve(self, image: torch.Tensor, reference: torch.Tensor, unsettled: torch.Tensor) -> None:
        """Settle, in place, what is clearly beaten by the lowest ids, the commonest entries of most vocabularies.

        Args:
            image: states, (rows, tokens, d).
            reference: best logit of each word, (rows, tokens, words).
            unsettled: what the block left open, bool (rows, tokens, words, len(KS)).
        """
        rows, tokens = unsettled.flatten(2).any(-1).nonzero(as_tuple=True)
        for row, token in zip(torch.split(rows, _SIEVED), torch.split(tokens, _SIEVED), strict=True):
            top = _thresholds(lowest_entry_logits(image[row, token], self._head)).unsqueeze(1)
            unsettled[row, token] &= reference[row, token].unsqueeze(-1) >= top - _slack(top)

    def exit_agreement(self, own_logits: torch.Tensor) -> torch.Tensor:
        """Whether the last token's best entry at each point is the model's own, bool (batch, points).

        Entries that tie for the first place of the model's own logits, as rounding to 16 bits makes them, all count.
        What is open for the hits is settled by the way: ask for the hits afterwards.

        Args:
            own_logits: the model's finite logits of the last token, (batch, vocabulary).
        """
        self._look_at_held()
        own_logits = own_logits.to(self._rows.device)
        states = upcast(torch.cat(self._last, dim=1)[:, :, 0])
        is_own = own_logits == own_logits.amax(-1, keepdim=True)
        # Logits that are NaN have no best entry; any will do where no row has one.
        own = is_own.any(0).nonzero().flatten() if bool(is_own.any()) else is_own.new_zeros(1, dtype=torch.long)
        weight, bias = unembedding_rows(self._head, own)
        others = states @ self._rows.T + (0.0 if self._bias is None else self._bias)
        mine = states @ weight.T + (0.0 if bias is None else bias)
        mine = mine.masked_fill(~is_own[:, None, own], -torch.inf).amax(-1)
        best = torch.cat([others, mine.unsqueeze(-1)], dim=-1).amax(-1)
        agree = torch.zeros_like(best, dtype=torch.bool)
        rows, points = (mine >= best - _slack(best)).nonzero(as_tuple=True)
        low = lowest_entry_logits(states[rows, points], self._head).amax(-1)
        open_still = mine[rows, points] >= low - _slack(low)
        rows, points = rows[open_still], points[open_still]
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
        sample = torch.cat([part.sample for part in parts]) if parts else None
        hits, agree = [], []
        with weights_loaded(self._head):
            for start in range(0, len(states), _CHUNK):
                full = dense_logits(states[start : start + _CHUNK], self._head)
                border = max(0, min(len(full), among - start))
                if sample is not None and border:
                    best = full[:border].topk(max(KS), dim=-1).values
                    hits.append(self._words.in_top_k(full[:border], best, sample[start : start + border]))
                if rows is not None and is_own is not None and border < len(full):
                    exits, first = full[border:], start + border - among
                    own = is_own[rows[first : first + len(exits)]]
                    agree.append(exits.masked_fill(~own, -torch.inf).amax(-1) >= exits.amax(-1))
        if hits:
            for part, hit in zip(parts, torch.split(torch.cat(hits), [len(part.row) for part in parts]), strict=True):
                counts = torch.zeros_like(part.found, dtype=torch.int32).index_add_(0, part.row, hit.int())
                part.found.logical_or_(counts > 0)
        return torch.cat(agree) if agree else self._words.is_own.new_empty(0)


def open_lens(task: LensTask, image: torch.Tensor, unembedding: nn.Module, norm: Norm) -> Lens | DenseLens:
    """The lens for a batch: the pruned one where the head is its weight and nothing is drawn, else the dense one."""
    if isinstance(unembedding, nn.Linear) and is_plain(unembedding) and not task.dense:
        return Lens(task, image, unembedding, norm)
    return DenseLens(task, image, unembedding, norm)


def _thresholds(*logits: torch.Tensor) -> torch.Tensor:
    """The k-th best of each row for every k, (rows, len(KS)), of logits (rows, entries) in one or several parts."""
    most = max(KS)
    tops = [part.topk(min(most, part.shape[-1]), dim=-1).values for part in logits]
    top = torch.cat([*tops, logits[0].new_full((len(logits[0]), most), -torch.inf)], dim=-1).topk(most, dim=-1).values
    return torch.stack([top[:, k - 1] for k in KS], dim=-1)


def _slack(thresholds: torch.Tensor) -> torch.Tensor:
    """How near a logit may come to be left to the whole vocabulary."""
    return _SLACK * thresholds.abs().clamp(min=1.0)
