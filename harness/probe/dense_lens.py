"""LogitLens over the whole vocabulary: for heads of any make, for what is drawn, and as the pruned lens's oracle."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from harness.models.linear import device_of
from harness.probe.asked_words import AskedWords, padded_positions
from harness.probe.lens_task import KS, LensTask
from harness.probe.unembedding import dense_logits

Norm = Callable[[torch.Tensor], torch.Tensor]

# Image tokens whose logits over the whole vocabulary are held at a time.
_ROWS = 256


class DenseLens:
    """Answers a `LensTask` for one batch, residual point by residual point, by decoding every image token."""

    def __init__(self, task: LensTask, image: torch.Tensor, unembedding: nn.Module, norm: Norm) -> None:
        """Prepare for a batch; the arguments are those of `Lens`, with a head of any make."""
        self._drawing, self._head, self._norm = task.dense, unembedding, norm
        self._device = device_of(unembedding, image.device)
        self._positions, self._valid = padded_positions(image.to(self._device))
        self._words = AskedWords(task.references, self._device)
        self._found: list[torch.Tensor] = []
        self._decoded: list[torch.Tensor] = []
        self._last: list[torch.Tensor] = []

    def read(self, states: torch.Tensor) -> None:
        """Take in one residual point: states (batch, tokens, d), before the final norm."""
        index = self._positions.to(states.device).unsqueeze(-1).expand(-1, -1, states.shape[-1])
        image = states.gather(1, index).to(self._device)
        batch, tokens, width = image.shape
        self._last.append(self._norm(states[:, -1:].clone().to(self._device)))
        sample = torch.arange(batch, device=self._device).repeat_interleave(tokens)
        normed = self._norm(image.view(-1, 1, width)).view(-1, width)
        hits, decoded = [], []
        for part, owner in zip(torch.split(normed, _ROWS), torch.split(sample, _ROWS), strict=True):
            logits = dense_logits(part, self._head)
            best, entries = logits.topk(max(KS), dim=-1)
            hits.append(self._words.among(logits, best, owner))
            decoded.append(entries)
        hit = torch.cat(hits).view(batch, tokens, -1, len(KS))
        self._found.append((hit & self._valid.view(batch, tokens, 1, 1)).any(1))
        if self._drawing:
            table = torch.cat(decoded).view(batch, tokens, -1)
            self._decoded.append(table.masked_fill(~self._valid.unsqueeze(-1), -1))

    def hits(self) -> torch.Tensor:
        """Words found, int (batch, points, 2, len(KS)): of the sample's own words, and of another sample's."""
        return self._words.counts(torch.stack(self._found, dim=1))

    def decoded(self) -> torch.Tensor:
        """Entries decoded at the image tokens, (batch, points, image tokens, k); -1 = padding. Drawing tasks only."""
        return torch.stack(self._decoded, dim=1)

    def decoded_last(self) -> torch.Tensor:
        """Entries decoded at the last token, (batch, points, k)."""
        return torch.stack([self._logits(states).topk(max(KS), dim=-1).indices for states in self._last], dim=1)

    def last_logits(self) -> torch.Tensor:
        """Logits of the last token at the point read last, (batch, vocabulary) in float32 or better."""
        return self._logits(self._last[-1])

    def exit_agreement(self, own_logits: torch.Tensor) -> torch.Tensor:
        """Whether the last token's best entry at each point is the model's own, bool (batch, points).

        Args:
            own_logits: the model's finite logits of the last token, (batch, vocabulary); all that tie for the first
                place count.
        """
        own_logits = own_logits.to(self._device)
        is_own = own_logits == own_logits.amax(-1, keepdim=True)
        points = []
        for states in self._last:
            logits = self._logits(states)
            points.append(logits.masked_fill(~is_own, -torch.inf).amax(-1) >= logits.amax(-1))
        return torch.stack(points, dim=1)

    def _logits(self, states: torch.Tensor) -> torch.Tensor:
        """The logits of one point's normed last states (batch, 1, d), in one call of the head as the model makes it."""
        return dense_logits(states[:, 0], self._head)
