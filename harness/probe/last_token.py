"""Attention of the last prompt token per layer: shares per token group, and norms per token for figures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from harness.models.linear import apply_linear, is_plain
from harness.models.offloaded import weights_loaded
from harness.models.prompts.prompt import TokenGroups
from harness.probe.attention import LastRow
from harness.probe.precision import split_product, upcast, wide_product


class ShareReader:
    """Shares of the last token's attention to image, instruction, other tokens and itself, which sum to 1."""

    def __init__(self, groups: TokenGroups) -> None:
        itself = torch.zeros_like(groups.real)
        itself[:, -1] = True
        masks = [groups.image & ~itself, groups.instruction & ~itself, groups.other & ~itself, itself]
        self._masks = torch.stack(masks, dim=1)

    def __call__(self, amounts: torch.Tensor) -> torch.Tensor:
        """Return the shares per group, (batch, rows, 4), of non-negative amounts (batch, rows, keys).

        Rows of zeros, from layers without softmax attention, stay zeros. Real shares differ from them: they sum to 1.
        """
        totals = torch.bmm(amounts, self._masks.to(amounts.dtype).transpose(1, 2))
        return totals / totals.sum(-1, keepdim=True).clamp(min=torch.finfo(totals.dtype).tiny)


class LastTokenAttention:
    """Collector of the last token's attention, layer by layer."""

    def __init__(self, groups: TokenGroups, depth: int, *, drawing: bool) -> None:
        self._shares, self._depth, self._drawing = ShareReader(groups), depth, drawing
        self._device = groups.real.device
        self._weights: dict[int, torch.Tensor] = {}
        self._norms: dict[int, torch.Tensor] = {}
        self._instruction: dict[int, torch.Tensor] = {}

    def read(self, layer: int, projection: nn.Module, row: LastRow) -> tuple[torch.Tensor, torch.Tensor | None] | None:
        """Read the row of one layer.

        Returns:
            The vectors sum_h alpha_j^h v_j^h W_O^h that the tokens contribute, (batch, keys, d) in float32 or better,
            and the projection's bias (d,) or None. None instead of both if the row is unusable.
        """
        # Only reduced tensors are copied between the devices of a distributed model.
        self._weights[layer] = row.weights.mean(1).to(self._device)
        if row.instruction is not None:
            self._instruction[layer] = row.instruction.to(self._device)
        if row.unusable:
            self._norms.pop(layer, None)
            return None
        projected = linear_map(projection, row.values)
        vectors = projected(row.values)
        self._norms[layer] = torch.linalg.vector_norm(vectors, dim=-1).to(self._device)
        return vectors, projected.bias

    @property
    def layers(self) -> list[int]:
        """The layers that were read, 0-based."""
        return sorted(self._weights)

    def arrays(self) -> dict[str, torch.Tensor]:
        """Return norm_shares, weight_shares (batch, L, 4), sink_share and instruction_share (batch, L).

        sink_share is the image's share of the weights minus its share of the norms. For figures norm_rows (batch, L,
        tokens) is added. Layers without such values hold zeros.
        """
        if not self._weights:
            return {}
        norms = self._over_layers(self._norms)
        by_norm, by_weight = self._shares(norms), self._shares(self._over_layers(self._weights))
        arrays = {
            "norm_shares": by_norm,
            "weight_shares": by_weight,
            "sink_share": (by_weight - by_norm)[..., 0] * by_norm.any(-1),
            "instruction_share": self._over_layers(self._instruction, keys=False),
        }
        return arrays | ({"norm_rows": norms} if self._drawing else {})

    def _over_layers(self, amounts: dict[int, torch.Tensor], *, keys: bool = True) -> torch.Tensor:
        """Return the amounts of all layers, (batch, L, keys), without `keys` (batch, L); zeros for a layer without."""
        zeros = torch.zeros_like(next(iter(self._weights.values())))
        zeros = zeros if keys else zeros[:, 0]
        return torch.stack([amounts.get(layer, zeros) for layer in range(self._depth)], dim=1)


@dataclass(frozen=True, slots=True)
class LinearMap:
    """A linear map with weight (out, in) in any floating type, and bias (out,) or None."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __call__(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the products (..., out) of vectors (..., in) in float32 or better, without the bias."""
        if self.weight.is_cuda and self.weight.dtype == torch.bfloat16 and hasattr(torch.ops.aten.mm, "dtype"):
            return split_product(vectors, self.weight)
        return wide_product(vectors, self.weight)


def linear_map(module: nn.Module, vectors: torch.Tensor) -> LinearMap:
    """Return the linear map of a layer, read from its weight or, if it is not plain, by projecting unit vectors.

    The projection of a zero vector gives the bias. A layer that quantises its input maps unit vectors exactly.

    Args:
        module: a layer that is linear in its input, up to a bias.
        vectors: vectors (..., in) that it will be applied to; the unit vectors are created on their device.

    Raises:
        LinearError: the layer does not accept vectors of that width.
        OffloadError: its weights are on the meta device and stored nowhere else.
    """
    if is_plain(module):
        with weights_loaded(module):
            return LinearMap(module.weight, module.bias)  # type: ignore[arg-type]
    width = vectors.shape[-1]
    # In a separate call, because a layer with one quantisation scale for all rows would round zeros and units together.
    bias = upcast(apply_linear(module, torch.zeros(1, width, device=vectors.device)))[0]
    unit = upcast(apply_linear(module, torch.eye(width, device=vectors.device)))
    return LinearMap((unit - bias).T, bias)
