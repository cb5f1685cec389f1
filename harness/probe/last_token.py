"""What the last prompt token attends to in every layer: shares per token group, and the whole row where it is drawn."""

from __future__ import annotations

import torch
from torch import nn

from harness.models.prompt import TokenGroups
from harness.probe.attention import LastRow, transformed

SHARES = ("image", "instruction", "other", "self")


class ShareReader:
    """Shares of the last token's attention per token group: image, instruction, other and itself; they sum to 1."""

    def __init__(self, groups: TokenGroups) -> None:
        itself = torch.zeros_like(groups.real)
        itself[:, -1] = True
        masks = [groups.image & ~itself, groups.instruction & ~itself, groups.other & ~itself, itself]
        self._masks = torch.stack(masks, dim=1)

    def __call__(self, amounts: torch.Tensor) -> torch.Tensor:
        """Shares per group, (batch, 4) in the order of `SHARES`, of non-negative amounts (batch, keys)."""
        totals = torch.bmm(self._masks.to(amounts.dtype), amounts.unsqueeze(-1)).squeeze(-1)
        return totals / totals.sum(-1, keepdim=True)


class LastTokenAttention:
    """Takes in the last token's row of each layer that has softmax attention, and gives arrays over all layers."""

    def __init__(self, groups: TokenGroups, depth: int, *, drawing: bool) -> None:
        self._shares, self._depth, self._drawing = ShareReader(groups), depth, drawing
        self._like = groups.real
        self._found: dict[str, dict[int, torch.Tensor]] = {"norm_shares": {}, "weight_shares": {}, "norm_rows": {}}
        self.refused: dict[int, str] = {}

    def read(self, layer: int, projection: nn.Linear, row: LastRow) -> torch.Tensor | None:
        """Take in one layer's row; returns the vectors that the tokens contribute (batch, keys, d), None if refused."""
        # Where a model is spread over several devices, only what is reduced travels.
        home = self._like.device
        self._found["weight_shares"][layer] = self._shares(row.weights.mean(1).to(home))
        if row.refused:
            self.refused[layer] = row.refused
            return None
        vectors = transformed(row.values, projection)
        norms = torch.linalg.vector_norm(vectors, dim=-1).to(home)
        self._found["norm_shares"][layer] = self._shares(norms)
        if self._drawing:
            self._found["norm_rows"][layer] = norms
        return vectors

    @property
    def layers(self) -> list[int]:
        """The layers that were read, 0-based."""
        return sorted(self._found["weight_shares"])

    def arrays(self) -> dict[str, torch.Tensor]:
        """norm_shares and weight_shares (batch, L, 4), norm_rows (batch, L, tokens) when drawing.

        Layers that have no such numbers hold zeros, which no shares are that sum to 1.
        """
        arrays = {}
        for name, found in self._found.items():
            like = next(iter(found.values()), None)
            if like is None and name == "norm_shares" and self.layers:
                like = self._found["weight_shares"][self.layers[0]]
            if like is None and self._drawing and self.layers:
                like = self._like.float()
            if like is not None:
                nothing = torch.zeros_like(like)
                arrays[name] = torch.stack([found.get(layer, nothing) for layer in range(self._depth)], dim=1)
        return arrays
