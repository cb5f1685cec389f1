"""LogitLens over the whole vocabulary, for unembeddings of any class and for the samples that figures show.

The pruned lens is compared with it, and uses the functions for partial logits in this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn

from harness.models.linear import device_of, is_plain
from harness.models.offloaded import weights_loaded
from harness.probe.lens_task import KS, LensTask, TargetWords, padded_positions
from harness.probe.precision import upcast, wide_product

Norm = Callable[[torch.Tensor], torch.Tensor]

# The number of image tokens whose logits over the whole vocabulary are in memory at a time.
_ROWS = 256
# The number of lowest entry ids of `lowest_entry_logits`.
_ENTRIES = 4096


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
        hits, decoded = [], []
        for part, sample_part in zip(torch.split(normed, _ROWS), torch.split(sample, _ROWS), strict=True):
            logits = dense_logits(part, self._head)
            best, entries = logits.topk(max(KS), dim=-1)
            hits.append(self._words.in_top_k(logits, best, sample_part))
            decoded.append(entries)
        hit = torch.cat(hits).view(batch, tokens, -1, len(KS))
        self._hits.append((hit & self._valid.view(batch, tokens, 1, 1)).any(1))
        if self.dense:
            table = torch.cat(decoded).view(batch, tokens, -1)
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
        """Return the entries decoded at the last token, (batch, points, k)."""
        parts = [logits.topk(max(KS), dim=-1).indices for logits in self._logits_of_last()]
        return torch.cat(parts, dim=1)

    def last_logits(self) -> torch.Tensor:
        """Return the last token's logits at the point read last, (batch, vocabulary) in float32 or better."""
        return dense_logits(self._last[-1][:, 0], self._head)

    def exit_agreement(self, model_logits: torch.Tensor) -> torch.Tensor:
        """Return True where the last token's best entry equals the model's, bool (batch, points).

        Args:
            model_logits: the model's finite logits of the last token, (batch, vocabulary). Entries that tie for the
                largest logit all count as best.
        """
        model_logits = model_logits.to(self._device)
        is_best = model_logits == model_logits.amax(-1, keepdim=True)
        hidden = ~is_best.unsqueeze(1)
        parts = [
            logits.masked_fill(hidden, -torch.inf).amax(-1) >= logits.amax(-1) for logits in self._logits_of_last()
        ]
        return torch.cat(parts, dim=1)

    def _logits_of_last(self) -> Iterator[torch.Tensor]:
        """Yield the last token's logits at some points, (batch, points, vocabulary), in order of the points.

        Several points share one pass over a plain unembedding. Another class may round all rows of a call together.
        """
        batch = len(self._last[0])
        plain = isinstance(self._head, nn.Linear) and is_plain(self._head)
        points = max(1, _ROWS // batch) if plain else 1
        for start in range(0, len(self._last), points):
            states = torch.cat(self._last[start : start + points], dim=1)
            yield dense_logits(states.flatten(0, 1), self._head).view(batch, states.shape[1], -1)


def dense_logits(states: torch.Tensor, unembedding: nn.Module) -> torch.Tensor:
    """Return logits over the whole vocabulary in float32 or better, (rows, vocabulary), of normed states (rows, d).

    An unembedding that is more than a weight and bias is called as a module, in the model's own precision.
    """
    if not isinstance(unembedding, nn.Linear) or not is_plain(unembedding):
        return upcast(unembedding(states.unsqueeze(1))[:, 0])
    with weights_loaded(unembedding):
        # A float32 copy of the whole unembedding would be the largest tensor of a measurement.
        logits, bias = wide_product(states, unembedding.weight), unembedding.bias
        return logits if bias is None else logits + upcast(bias)


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
