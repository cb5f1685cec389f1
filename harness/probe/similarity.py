"""Similarity of hidden states within and across the token groups, from the group means of unit vectors."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from harness.models.prompt import TokenGroups

CURVES = ("inter", "inter_instruction", "image", "text", "instruction")


def upcast(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in float32, or as it is where it is float64: every reduction is made in this precision."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


@dataclass(frozen=True, slots=True)
class UnitSums:
    """Sums of the unit vectors of the image, text and instruction tokens.

    vectors: (batch, 3, d). units: how many of a group's states have a direction, (batch, 3).
    """

    vectors: torch.Tensor
    units: torch.Tensor

    def to(self, device: torch.device) -> UnitSums:
        """The same sums on another device."""
        return UnitSums(self.vectors.to(device), self.units.to(device))


class GroupSums:
    """Sums of unit vectors over the image, text and instruction tokens of a batch.

    The mean cosine over all pairs of two groups is the dot product of their mean unit vectors, so that no matrix of
    cosines is ever made: O(tokens x d) instead of O(tokens^2 x d). A state of norm zero has no direction: its cosine
    with anything counts as 0, so it adds nothing to a sum and still counts in the mean.
    """

    def __init__(self, groups: TokenGroups) -> None:
        self._masks = torch.stack([groups.image, groups.text, groups.instruction], dim=1)
        self._counts = self._masks.sum(-1)
        self._padded = not bool(groups.real.all())
        self._real = groups.real.unsqueeze(-1)

    def __call__(self, states: torch.Tensor) -> UnitSums:
        """Sums of the unit vectors of each group, in float32 or better.

        Args:
            states: hidden states, (batch, tokens, d).
        """
        wide = upcast(states)
        masks, real = self._masks.to(wide.device), self._real.to(wide.device)
        if self._padded:
            # A fully masked query may hold anything, NaN included, and 0 x NaN would reach the sums.
            wide = torch.where(real, wide, 0.0)
        norms = torch.linalg.vector_norm(wide, dim=-1)
        # Below `tiny` the reciprocal overflows. A NaN is no direction either, but 0 x NaN brings it into the sums.
        directed = masks & (norms >= torch.finfo(wide.dtype).tiny).unsqueeze(1)
        return UnitSums(torch.bmm(torch.where(directed, 1.0 / norms.unsqueeze(1), 0.0), wide), directed.sum(-1))

    def similarities(self, sums: UnitSums) -> torch.Tensor:
        """Mean cosines across and within the groups.

        Args:
            sums: what `__call__` returned.

        Returns:
            (batch, 5) in the order of `CURVES`: image-text and image-instruction over all pairs; image, text and
            instruction over ordered pairs of different tokens, (|sum|^2 - units) / (n (n - 1)): a state's product with
            itself is no pair, and is 1 where it has a direction.
        """
        counts = self._counts.to(sums.vectors.dtype)
        gram = torch.bmm(sums.vectors, sums.vectors.transpose(1, 2))
        across = gram[:, 0, 1:] / (counts[:, :1] * counts[:, 1:])
        within = (torch.diagonal(gram, dim1=1, dim2=2) - sums.units) / (counts * (counts - 1))
        return torch.cat([across, within], dim=1)

    def means(self, sums: UnitSums) -> torch.Tensor:
        """Mean unit vectors of the image and of the text tokens, (batch, 2, d)."""
        return sums.vectors[:, :2] / self._counts[:, :2].unsqueeze(-1)


def adjusted(image_means: torch.Tensor, text_means: torch.Tensor) -> torch.Tensor:
    """Inter-modal similarity minus its value between samples, per sample and residual point.

    What is taken off is the mean cosine between the image tokens of one sample and the text tokens of all others: the
    part of the similarity that needs no common input (anisotropy; Ethayarajh 2019).

    Args:
        image_means: mean unit vectors of the image tokens, (samples, points, d).
        text_means: the same of the text tokens.

    Returns:
        (samples, points).

    Raises:
        ValueError: fewer than two samples, so that there is no other to compare with.
    """
    n = len(image_means)
    if n < 2:
        raise ValueError("the anisotropy adjustment compares samples with each other: measure at least two")
    others = (text_means.sum(0, keepdim=True) - text_means) / (n - 1)
    return ((image_means * text_means).sum(-1)) - ((image_means * others).sum(-1))
