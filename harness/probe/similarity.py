"""Similarity of hidden states within and across the token groups, from the group means of unit vectors."""

from __future__ import annotations

import torch

from harness.models.prompt import TokenGroups

CURVES = ("inter", "inter_instruction", "image", "text", "instruction")


def upcast(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in float32, or as it is where it is float64: every reduction is made in this precision."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


class GroupSums:
    """Sums of unit vectors over the image, text and instruction tokens of a batch.

    The mean cosine over all pairs of two groups is the dot product of their mean unit vectors, so that no matrix of
    cosines is ever made: O(tokens x d) instead of O(tokens^2 x d).
    """

    def __init__(self, groups: TokenGroups) -> None:
        self._masks = torch.stack([groups.image, groups.text, groups.instruction], dim=1)
        self._counts = self._masks.sum(-1)
        self._padded = not bool(groups.real.all())
        self._real = groups.real.unsqueeze(-1)

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """Sums of the unit vectors of each group.

        Args:
            states: hidden states, (batch, tokens, d).

        Returns:
            (batch, 3, d) in float32 or better, in the order image, text, instruction.
        """
        wide = upcast(states)
        if self._padded:
            # A fully masked query may hold anything, NaN included, and 0 x NaN would reach the sums.
            wide = torch.where(self._real, wide, 0.0)
        norms = torch.linalg.vector_norm(wide, dim=-1)
        return torch.bmm(torch.where(self._masks, 1.0 / norms.unsqueeze(1), 0.0), wide)

    def similarities(self, sums: torch.Tensor) -> torch.Tensor:
        """Mean cosines across and within the groups.

        Args:
            sums: what `__call__` returned, (batch, 3, d).

        Returns:
            (batch, 5) in the order of `CURVES`: image-text and image-instruction over all pairs; image, text and
            instruction over ordered pairs of different tokens, (|sum|^2 - n) / (n (n - 1)).
        """
        counts = self._counts.to(sums.dtype)
        gram = torch.bmm(sums, sums.transpose(1, 2))
        across = gram[:, 0, 1:] / (counts[:, :1] * counts[:, 1:])
        within = (torch.diagonal(gram, dim1=1, dim2=2) - counts) / (counts * (counts - 1))
        return torch.cat([across, within], dim=1)

    def means(self, sums: torch.Tensor) -> torch.Tensor:
        """Mean unit vectors of the image and of the text tokens, (batch, 2, d)."""
        return sums[:, :2] / self._counts[:, :2].unsqueeze(-1)


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
