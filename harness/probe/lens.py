"""LogitLens at the image tokens and at the last token: exact recall without decoding the whole vocabulary.

Recall depends only on whether a word is among the k best entries of some image token. A block holds entries that are
often decoded. If k entries of the block have a larger logit than the word at a token, that token is settled. The other,
open tokens are decoded over the whole vocabulary until the word is found. The hits equal those of the dense lens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from harness.models.linear import is_plain
from harness.models.offloaded import weights_loaded
from harness.probe.dense_lens import DenseLens, Norm
from harness.probe.lens_task import KS, LensTask, TargetWords, padded_entries, padded_positions
from harness.probe.logits import best_entries, dense_logits, join_targets, lowest_entry_logits, rank, unembedding_rows
from harness.probe.precision import upcast, wide_product

# The numbers of tokens that are open, and compared with the lowest ids, at a time.
_CHUNK = 256
_SIEVE_CHUNK = 1024
# States of several residual points are collected and processed together, because each processing step synchronises the
# GPU and small products are slow. The limit on collected states is a share of the unembedding's size, in bytes.
_PENDING_SHARE, _PENDING_LEAST = 1 / 8, 2**20
# Matrix products of different shapes round differently. The block settles a token only if the difference of the logits
# exceeds this relative slack; closer cases are decoded over the whole vocabulary.
_SLACK = 1e-4


@dataclass(frozen=True, slots=True)
class _OpenTokens:
    """Image tokens that the block does not settle.

    states: (tokens, d). hits: True for the words found so far, (batch x points, words, len(KS)). row: index into
    `hits` of each token, (tokens,). sample: index into the batch of each token, (tokens,). unsettled: True for the
    words that the token may decode, (tokens, words, len(KS)). leading: True for the tokens that are the most likely
    to decode one of these words in their row, (tokens,).
    """

    hits: torch.Tensor
    row: torch.Tensor
    sample: torch.Tensor
    states: torch.Tensor
    unsettled: torch.Tensor
    leading: torch.Tensor

    def subset(self, mask: torch.Tensor) -> _OpenTokens:
        """Return the tokens where a mask (tokens,) is True; `hits` stays the same tensor."""
        index = mask.nonzero().flatten()
        parts = (self.row, self.sample, self.states, self.unsettled, self.leading)
        return _OpenTokens(self.hits, *(part[index] for part in parts))

    def undecided(self) -> torch.Tensor:
        """Return True for the other tokens that may decode a word not found so far, bool (tokens,)."""
        return ~self.leading & (self.unsettled & ~self.hits[self.row]).flatten(1).any(-1)


class Lens:
    """LogitLens for one batch, residual point by residual point, which reads rows of a plain unembedding."""

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
        targets = [sorted({entry for word in sample for entry in word}) for sample in words]
        # The block excludes the target entries of all samples, so that no entry is compared with itself. It always
        # includes the lowest ids, so that it has at least k entries.
        block = {*task.block, *range(max(KS))}.difference(*targets)
        self._rows, self._bias = unembedding_rows(
            unembedding, torch.tensor(sorted(block), dtype=torch.long, device=device)
        )
        # The target entries of each sample, padded to the largest number of entries in the batch.
        most = max(1, *map(len, targets))
        padded = torch.tensor([entries + [0] * (most - len(entries)) for entries in targets], device=device)
        self._target_rows, self._target_bias = unembedding_rows(unembedding, padded)
        self._padding = torch.tensor([[k >= len(entries) for k in range(most)] for entries in targets], device=device)
        self._columns = padded_entries(
            [
                [tuple(map(sample_entries.index, word)) for word in sample]
                for sample_entries, sample in zip(targets, words, strict=True)
            ]
        ).to(device)
        self._pending: list[torch.Tensor] = []
        self._pending_last: list[torch.Tensor] = []
        self._max_pending = max(unembedding.weight.nbytes * _PENDING_SHARE, _PENDING_LEAST)
        self._hits: list[torch.Tensor] = []
        self._open: list[_OpenTokens] = []
        self._last: list[torch.Tensor] = []
        self.opened = 0

    def read(self, states: torch.Tensor) -> None:
        """Read one residual point from hidden states (batch, tokens, d), before the final norm."""
        index = self._positions.to(states.device).unsqueeze(-1).expand(-1, -1, states.shape[-1])
        self._pending.append(states.gather(1, index).to(self._rows.device))
        # A copy, because a view would keep the whole tensor in memory.
        self._pending_last.append(states[:, -1:].clone().to(self._rows.device))
        if len(self._pending) * self._pending[0].nbytes >= self._max_pending:
            self._process_pending()

    def hits(self) -> torch.Tensor:
        """Return the number of words found, int (batch, points, 2, len(KS)): own words, then another sample's."""
        self._process_pending()
        self._decode_open()
        batch, words = self._words.is_own.shape
        return self._words.count_hits(torch.cat([part.view(batch, -1, words, len(KS)) for part in self._hits], dim=1))

    def last_logits(self) -> torch.Tensor:
        """Return the last token's logits at the point read last, (batch, vocabulary) in float32 or better."""
        self._process_pending()
        return dense_logits(self._last[-1][:, -1, 0], self._head)

    def _process_pending(self) -> None:
        if not self._pending:
            return
        self._last.append(self._normed(self._pending_last))
        self._hits.append(self._search(upcast(self._normed(self._pending))))

    def _normed(self, points: list[torch.Tensor]) -> torch.Tensor:
        """Return the states of several points after the final norm, (batch, points, tokens, d), and clear `points`."""
        states = torch.stack(points, dim=1)
        points.clear()
        return self._norm(states.view(-1, 1, states.shape[-1])).view(states.shape)

    def _search(self, image: torch.Tensor) -> torch.Tensor:
        """Return the words found in image states (batch, points, tokens, d), bool (batch x points, words, len(KS)).

        `_decode_open` later adds, in place, the words found at tokens that the block leaves open.
        """
        batch, points, tokens, width = image.shape
        target_logits = torch.bmm(image.view(batch, -1, width), self._target_rows.transpose(1, 2))
        logits = wide_product(image.view(-1, width), self._rows)
        if self._bias is not None and self._target_bias is not None:
            target_logits, logits = target_logits + self._target_bias.unsqueeze(1), logits + self._bias
        words, entries = self._columns.shape[1:]
        columns = self._columns.clamp(min=0).view(batch, 1, -1).expand(-1, points * tokens, -1)
        reference = target_logits.gather(2, columns).view(batch, -1, words, entries)
        reference = reference.masked_fill(~self._words.known.unsqueeze(1), -torch.inf).amax(-1).view(-1, tokens, words)
        target_logits = target_logits.masked_fill(self._padding.unsqueeze(1), -torch.inf).view(len(logits), -1)
        top = _thresholds(logits, target_logits).view(-1, tokens, 1, len(KS))
        lead = reference.unsqueeze(-1) - top
        valid = self._valid.unsqueeze(1).expand(-1, points, -1).reshape(-1, tokens, 1, 1)
        unsettled = (lead >= -_slack(top)) & valid
        self._sieve(image.view(-1, tokens, width), reference, unsettled)
        hits = torch.zeros((batch * points, words, len(KS)), dtype=torch.bool, device=image.device)
        # Tokens where a word has the largest lead come first, since a hit there settles the word for the others.
        rank = lead.masked_fill(~unsettled, -torch.inf).amax((2, 3))
        order = rank.flatten().argsort(descending=True, stable=True)
        while True:
            wanted = unsettled & ~hits.unsqueeze(1)
            pending = wanted.flatten(2).any(-1).flatten()
            chosen = order[pending[order]]
            row, token = chosen[:_CHUNK] // tokens, chosen[:_CHUNK] % tokens
            if len(row):
                first = lead.masked_fill(~wanted, -torch.inf).argmax(1, keepdim=True)
                leading = torch.zeros_like(wanted).scatter_(1, first, True) & wanted
                states, leads = image.view(-1, tokens, width)[row, token], leading[row, token].flatten(1).any(-1)
                self._open.append(_OpenTokens(hits, row, row // points, states, wanted[row, token], leads))
            if len(chosen) <= _CHUNK:
                # Open tokens of several calls share one pass over the vocabulary.
                if sum(len(part.row) for part in self._open) >= _CHUNK:
                    self._decode_open()
                return hits
            self._decode_open()
            unsettled[row, token] = False

    def _sieve(self, image: torch.Tensor, reference: torch.Tensor, unsettled: torch.Tensor) -> None:
        """Settle, in place, the words whose logit is clearly below those of the lowest ids.

        The lowest ids are the most frequent entries of most vocabularies.

        Args:
            image: states, (rows, tokens, d).
            reference: best logit of each word, (rows, tokens, words).
            unsettled: True where the block left a word open, bool (rows, tokens, words, len(KS)).
        """
        rows, tokens = unsettled.flatten(2).any(-1).nonzero(as_tuple=True)
        for row, token in zip(torch.split(rows, _SIEVE_CHUNK), torch.split(tokens, _SIEVE_CHUNK), strict=True):
            top = _thresholds(lowest_entry_logits(image[row, token], self._head)).unsqueeze(1)
            unsettled[row, token] &= reference[row, token].unsqueeze(-1) >= top - _slack(top)

    def exit_agreement(self, model_logits: torch.Tensor) -> torch.Tensor:
        """Return True where the last token's best entry equals the model's, bool (batch, points).

        Entries that tie for the largest of the model's logits, as after rounding to 16 bits, all count as best. This
        also settles the open image tokens, so call `hits` afterwards.

        Args:
            model_logits: the model's finite logits of the last token, (batch, vocabulary).
        """
        self._process_pending()
        states = upcast(torch.cat(self._last, dim=1)[:, :, 0])
        best = best_entries(model_logits.to(states.device))
        weight, bias = unembedding_rows(self._head, best[:, 0].clamp(min=0))
        block_logits = states @ self._rows.T + (0.0 if self._bias is None else self._bias)
        best_logits = states @ weight.transpose(1, 2) + (0.0 if bias is None else bias.unsqueeze(1))
        best_logit = best_logits.masked_fill(best < 0, -torch.inf).amax(-1)
        largest = torch.cat([block_logits, best_logit.unsqueeze(-1)], dim=-1).amax(-1)
        agree = torch.zeros_like(largest, dtype=torch.bool)
        rows, points = (best_logit >= largest - _slack(largest)).nonzero(as_tuple=True)
        low = lowest_entry_logits(states[rows, points], self._head).amax(-1)
        still_open = best_logit[rows, points] >= low - _slack(low)
        rows, points = rows[still_open], points[still_open]
        agree[rows, points] = self._decode_open(states[rows, points], best[rows])
        return agree

    def _decode_open(self, last: torch.Tensor | None = None, best: torch.Tensor | None = None) -> torch.Tensor:
        """Decode the open tokens over the whole vocabulary and add the words found, in place.

        The leading tokens come first. The others are decoded only if they may decode a word that these do not. Last
        tokens are decoded in the same pass, because reading the whole unembedding is slow.

        Args:
            last: states of last tokens, (n, d).
            best: the best entries of the model's logits for each state in `last`, (n, 1, entries); -1 = padding.

        Returns:
            True where the best entry of a state in `last` is one of `best`, bool (n,).
        """
        parts, self._open = self._open, []
        agree = self._decode([part.subset(part.leading) for part in parts], last, best)
        self._decode([part.subset(part.undecided()) for part in parts])
        return agree

    def _decode(
        self, parts: Sequence[_OpenTokens], last: torch.Tensor | None = None, best: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Decode all these tokens; arguments and result are those of `_decode_open`."""
        lengths = [len(part.row) for part in parts]
        self.opened += sum(lengths)
        states, targets = [part.states for part in parts], [self._words.entries[part.sample] for part in parts]
        if last is not None and best is not None:
            states.append(last)
            targets.append(best)
        if not any(map(len, states)):
            return self._words.is_own.new_empty(0)
        with weights_loaded(self._head):
            hits = rank(torch.cat(states), self._head, join_targets(targets), max(KS)).in_top(KS)
        words = self._words.entries.shape[1]
        for part, hit in zip(parts, torch.split(hits[: sum(lengths), :words], lengths), strict=True):
            counts = torch.zeros_like(part.hits, dtype=torch.int32).index_add_(0, part.row, hit.int())
            part.hits.logical_or_(counts > 0)
        return hits[sum(lengths) :, 0, 0]


def open_lens(task: LensTask, image: torch.Tensor, unembedding: nn.Module, norm: Norm) -> Lens | DenseLens:
    """Return the pruned lens for a plain linear unembedding and a task that is not dense, else the dense lens."""
    if isinstance(unembedding, nn.Linear) and is_plain(unembedding) and not task.dense:
        return Lens(task, image, unembedding, norm)
    return DenseLens(task, image, unembedding, norm)


def _thresholds(*logits: torch.Tensor) -> torch.Tensor:
    """Return the k-th best logit of each row for every k, (rows, len(KS)), from parts of shape (rows, entries)."""
    most = max(KS)
    tops = [part.topk(min(most, part.shape[-1]), dim=-1).values for part in logits]
    top = torch.cat([*tops, logits[0].new_full((len(logits[0]), most), -torch.inf)], dim=-1).topk(most, dim=-1).values
    return torch.stack([top[:, k - 1] for k in KS], dim=-1)


def _slack(thresholds: torch.Tensor) -> torch.Tensor:
    """Return the margin within which a logit must be compared over the whole vocabulary."""
    return _SLACK * thresholds.abs().clamp(min=1.0)
