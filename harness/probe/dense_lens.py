"""LogitLens over the whole vocabulary, for unembeddings of any class and for the samples that figures show.

The pruned lens is compared with it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from harness.models.linear import device_of, is_plain
from harness.probe.lens_task import KS, LensTask, TargetWords, padded_positions
from harness.probe.logits import best_entries, dense_logits, rank

Norm = Callable[[torch.Tensor], torch.Tensor]


class DenseLens:
    """LogitLens for one batch, residual point by residual point, which decodes every image token.

    Its results have one entry per residual point, or per point of a task with `points`.
    """

    def __init__(self, task: LensTask, image: torch.Tensor, unembedding: nn.Module, norm: Norm) -> None:
        """Prepare for a batch; the arguments are those of `Lens`, except that the unembedding may have any class."""
        self.dense, self._head, self._norm = task.dense, unembedding, norm
        self._points, self._read_count = task.points, 0
        self._device = device_of(unembedding, image.device)
        self._positions, self._valid = padded_positions(image.to(self._device))
        self._words = TargetWords(task.references, self._device)
        self._hits: list[torch.Tensor] = []
        self._decoded: list[torch.Tensor] = []
        self._last: list[torch.Tensor] = []
        self._decoded_last: list[torch.Tensor] = []

    def read(self, states: torch.Tensor) -> None:
        """Read one residual point from hidden states (batch, tokens, d), before the final norm."""
        point, self._read_count = self._read_count, self._read_count + 1
        if self._points and point not in self._points:
            return
        index = self._positions.to(states.device).unsqueeze(-1).expand(-1, -1, states.shape[-1])
        image = states.gather(1, index).to(self._device)
        batch, tokens, width = image.shape
        self._last.append(self._norm(states[:, -1:].clone().to(self._device)))
        sample = torch.arange(batch, device=self._device).repeat_interleave(tokens)
        normed = self._norm(image.view(-1, 1, width)).view(-1, width)
        ranking = rank(normed, self._head, self._words.entries[sample], max(KS))
        hit = ranking.in_top(KS).view(batch, tokens, -1, len(KS))
        self._hits.append((hit & self._valid.view(batch, tokens, 1, 1)).any(1))
        if self.dense:
            table = ranking.entries.view(batch, tokens, -1)
            self._decoded.append(table.masked_fill(~self._valid.unsqueeze(-1), -1))

    def hits(self) -> torch.Tensor:
        """Return the number of words found, int (batch, points, 2, len(KS)): own words, then another sample's."""
        return self._words.count_hits(torch.stack(self._hits, dim=1))

    def decoded(self) -> torch.Tensor:
        """Return the entries decoded at the image tokens, (batch, points, image tokens, k); -1 = padding.

        Dense tasks only.
        """
        return torch.stack(self._decoded, dim=1)

    def decoded_last(self) -> torch.Tensor:
        """Return the entries decoded at the last token, (batch, points, k); call `exit_agreement` first."""
        return torch.cat(self._decoded_last, dim=1)

    def last_logits(self) -> torch.Tensor:
        """Return the last token's logits at the point read last, (batch, vocabulary) in float32 or better."""
        return dense_logits(self._last[-1][:, 0], self._head)

    def exit_agreement(self, model_logits: torch.Tensor) -> torch.Tensor:
        """Return True where the last token's best entry equals the model's, bool (batch, points).

        Args:
            model_logits: the model's finite logits of the last token, (batch, vocabulary). Entries that tie for the
                largest logit all count as best.
        """
        best = best_entries(model_logits.to(self._device))
        # All points share one pass over a plain unembedding. Another class may round all rows of a call together.
        plain = isinstance(self._head, nn.Linear) and is_plain(self._head)
        agree = []
        for states in [torch.cat(self._last, dim=1)] if plain else self._last:
            targets = best.repeat_interleave(states.shape[1], dim=0)
            ranking = rank(states.flatten(0, 1), self._head, targets, max(KS))
            self._decoded_last.append(ranking.entries.view(*states.shape[:2], -1))
            agree.append(ranking.in_top((1,)).view(states.shape[:2]))
        return torch.cat(agree, dim=1)
