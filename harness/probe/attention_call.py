"""The arguments of one call of a model's attention function, and the softmax weights of some of its queries."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from harness.models.prompts.prompt import TokenGroups
from harness.probe.precision import upcast

# The largest number of softmax weights that are held at a time, 64 MB in float32.
_MOST_WEIGHTS = 2**24


@dataclass(frozen=True, slots=True)
class AttentionCall:
    """The tensors that an attention function receives.

    query: (batch, heads, queries, key dimension), rotary positions applied. key: (batch, key heads, keys, key
    dimension); each key head serves heads / key heads query heads. value: (batch, key heads, keys, value dimension).
    mask: bool (True = visible) or additive, broadcastable to (batch, heads, queries, keys); None if no key is masked,
    or if `causal` is True and query i sees the keys up to i. scaling: factor on the logits; None means 1 / sqrt(key
    dimension). softcap: c of c tanh(logit / c), if the model has one. position_bias: added to the logits,
    broadcastable to (batch, heads, queries, keys), if the model has one. sinks: logits that take a share of the softmax
    and have no value vector, (heads,) or (batch, heads, queries, 1).
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None = None
    scaling: float | None = None
    softcap: float | None = None
    position_bias: torch.Tensor | None = None
    sinks: torch.Tensor | None = None
    causal: bool = False

    def weights(self, positions: torch.Tensor) -> torch.Tensor:
        """Return the softmax weights of some queries in float32 or better, (batch, heads, m, keys).

        Args:
            positions: the positions of the queries, (batch, m).
        """
        batch, heads, _, dim = self.query.shape
        key_heads, keys = self.key.shape[1], self.key.shape[2]
        rows, count = positions.to(self.query.device), positions.shape[1]
        query = upcast(_rows(self.query, rows)).reshape(batch, key_heads, -1, dim)
        scaling = dim**-0.5 if self.scaling is None else self.scaling
        logits = torch.matmul(query, upcast(self.key).transpose(2, 3)) * scaling
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        logits = logits.view(batch, heads, count, keys)
        if self.position_bias is not None:
            logits = logits + upcast(_rows(self.position_bias, rows))[..., :keys]
        if self.mask is not None:
            mask = _rows(self.mask, rows)[..., :keys]
            logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask
        elif self.causal:
            later = torch.arange(keys, device=rows.device) > rows.unsqueeze(-1)
            logits = logits.masked_fill(later.unsqueeze(1), -torch.inf)
        if self.sinks is not None:
            sinks = upcast(self.sinks)
            sink = sinks.view(1, heads, 1, 1) if sinks.ndim == 1 else _rows(sinks, rows)
            logits = torch.cat([logits, sink.expand(batch, heads, count, 1)], dim=-1)
        return logits.softmax(-1)[..., :keys]

    def attends(self, earlier: torch.Tensor, later: torch.Tensor) -> bool:
        """Return True if a token of `earlier` attends to one of `later`, bool (batch, tokens) each.

        `earlier` covers the first tokens of the call, `later` those after them; both are False at padding.
        """
        if self.mask is None:
            return not self.causal
        count = earlier.shape[1]
        mask = self.mask[:, :, :count, count:]
        visible = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
        pairs = earlier[:, :, None] & later[:, None, :]
        return bool((visible & pairs[:, None].to(mask.device)).any())


def _rows(tensor: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return the queries at `positions` (batch, m) of a tensor (batch, heads, queries, ...), broadcast axes included.

    The result is (batch, heads, m, ...); an axis of size 1 before the last stays.
    """
    if tensor.shape[2] == 1:
        return tensor
    samples = torch.zeros_like(positions[:, :1]) if tensor.shape[0] == 1 else _numbers(positions)
    return tensor.transpose(1, 2)[samples, positions].transpose(1, 2)


def _numbers(positions: torch.Tensor) -> torch.Tensor:
    return torch.arange(len(positions), device=positions.device).unsqueeze(-1)


class InstructionQueries:
    """The share of the image in the attention of the instruction's tokens."""

    def __init__(self, groups: TokenGroups) -> None:
        counts = groups.instruction.sum(-1)
        # The positions of each sample's instruction first, in order; the rest of a shorter one is not counted.
        order = groups.instruction.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)
        self._positions = order[:, : int(counts.max())]
        self._counted = torch.arange(self._positions.shape[1], device=counts.device) < counts.unsqueeze(-1)
        self._counts, self._image = counts, groups.image

    def image_share(self, call: AttentionCall) -> torch.Tensor | None:
        """Return the mean softmax weight of the instruction's queries on the image, over heads and queries, (batch,).

        Padding, grouped heads, windows, biases and sinks count as in the model's attention. An instruction before the
        image cannot see it, so its share is 0.

        Returns:
            None if the call does not cover the tokens of the prompts, as in attention to other inputs.
        """
        batch, tokens = self._image.shape
        if call.query.shape[0] != batch or call.query.shape[2] != tokens or call.key.shape[2] < tokens:
            return None
        device, per_query = call.query.device, batch * call.query.shape[1] * call.key.shape[2]
        image = self._image.to(device)
        total = torch.zeros(batch, device=device, dtype=upcast(call.query[:0]).dtype)
        chunk = max(1, _MOST_WEIGHTS // per_query)
        for start in range(0, self._positions.shape[1], chunk):
            positions, counted = (part[:, start : start + chunk] for part in (self._positions, self._counted))
            weights = call.weights(positions)[..., :tokens].mean(1)
            # A padded query sees no key, so its weights may be NaN.
            on_image = torch.bmm(weights, image.to(weights.dtype).unsqueeze(-1)).squeeze(-1)
            total += on_image.masked_fill(~counted.to(device), 0.0).sum(-1)
        return total / self._counts.to(device)
