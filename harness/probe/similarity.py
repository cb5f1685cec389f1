"""Similarity of hidden states within and across the token groups, from the group means of unit vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from harness.models.prompts.prompt import TokenGroups


def upcast(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor in float32, or as it is where it is float64: every reduction is made in this precision."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


@dataclass(frozen=True, slots=True)
class UnitSums:
    """Sums of the unit vectors of the image, text and instruction tokens.

    vectors: (batch, 3, d). norms: of the states that were summed, (batch, tokens). Several residual points have an axis
    in front of these.
    """

    vectors: torch.Tensor
    norms: torch.Tensor

    def to(self, device: torch.device) -> UnitSums:
        """Return the same sums on another device."""
        return UnitSums(self.vectors.to(device), self.norms.to(device))

    @classmethod
    def stacked(cls, points: Sequence[UnitSums]) -> UnitSums:
        """Those of several points in one: vectors (points, batch, 3, d), norms (points, batch, tokens)."""
        vectors, norms = zip(*((point.vectors, point.norms) for point in points), strict=True)
        return cls(torch.stack(vectors), torch.stack(norms))


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
        self._weights: dict[tuple[torch.dtype, torch.device], torch.Tensor] = {}

    def __call__(self, states: torch.Tensor) -> UnitSums:
        """Sums of the unit vectors of each group, in float32 or better.

        Args:
            states: hidden states, (batch, tokens, d).
        """
        wide = upcast(states)
        if self._padded:
            # A fully masked query may hold anything, NaN included, and 0 x NaN would reach the sums.
            wide = torch.where(self._real.to(wide.device), wide, 0.0)
        kind = (wide.dtype, wide.device)
        if kind not in self._weights:
            self._weights[kind] = self._masks.to(device=wide.device, dtype=wide.dtype)
        norms = torch.linalg.vector_norm(wide, dim=-1)
        # Below `tiny` the reciprocal overflows; what is so small adds nothing that float32 could hold beside a unit.
        # A NaN stays one and reaches the sums.
        reciprocals = norms.clamp(min=_tiny(wide)).reciprocal_()
        return UnitSums(torch.bmm(self._weights[kind] * reciprocals.unsqueeze(1), wide), norms)

    def similarities(self, sums: UnitSums) -> torch.Tensor:
        """Mean cosines across and within the groups.

        Args:
            sums: what `__call__` returned, or several of these stacked.

        Returns:
            (batch, 5), (points, batch, 5) where they are stacked, the columns being image-text and image-instruction
            over all pairs, then image, text and instruction over ordered pairs of different tokens,
            (|sum|^2 - units) / (n (n - 1)): a state's product with itself is no pair, 1 where it has a direction.
        """
        vectors = sums.vectors
        counts = self._counts.to(vectors.dtype)
        directed = (sums.norms >= _tiny(vectors)).to(vectors.dtype).unsqueeze(-2)
        units = torch.matmul(directed, self._masks.to(vectors.dtype).transpose(1, 2)).squeeze(-2)
        gram = torch.matmul(vectors, vectors.transpose(-2, -1))
        across = gram[..., 0, 1:] / (counts[:, :1] * counts[:, 1:])
        within = (torch.diagonal(gram, dim1=-2, dim2=-1) - units) / (counts * (counts - 1))
        return torch.cat([across, within], dim=-1)

    def means(self, sums: UnitSums) -> torch.Tensor:
        """Mean unit vectors of the image and of the text tokens, (batch, 2, d), points in front where stacked."""
        return sums.vectors[..., :2, :] / self._counts[:, :2].unsqueeze(-1)


def _tiny(tensor: torch.Tensor) -> float:
    """Return the least norm that a state with a direction has."""
    return float(torch.finfo(tensor.dtype).tiny)


def between_samples(image_means: torch.Tensor, text_means: torch.Tensor) -> torch.Tensor:
    """Return the mean cosines between the image tokens of each sample and the text tokens of each sample.

    From these `inter_adjusted` can be had over any of the samples, without the vectors.

    Args:
        image_means: mean unit vectors of the image tokens, (samples, points, d).
        text_means: the same of the text tokens.

    Returns:
        (points, samples, samples), the sample of the image first.
    """
    return torch.bmm(image_means.transpose(0, 1), text_means.permute(1, 2, 0))


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
