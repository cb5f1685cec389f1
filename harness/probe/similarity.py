"""Similarity of hidden states within and across the token groups, their norms, and their cosines between points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from harness.models.prompts.prompt import TokenGroups
from harness.probe.precision import upcast


@dataclass(frozen=True, slots=True)
class UnitSums:
    """Sums of the unit vectors of the image, text and instruction tokens.

    vectors: (batch, 3, d). norms: norms of the summed states, (batch, tokens). Stacked residual points add a first
    axis to both.
    """

    vectors: torch.Tensor
    norms: torch.Tensor

    def to(self, device: torch.device) -> UnitSums:
        """Return the same sums on another device."""
        return UnitSums(self.vectors.to(device), self.norms.to(device))

    @classmethod
    def stacked(cls, points: Sequence[UnitSums]) -> UnitSums:
        """Stack the sums of several points: vectors (points, batch, 3, d), norms (points, batch, tokens)."""
        vectors, norms = zip(*((point.vectors, point.norms) for point in points), strict=True)
        return cls(torch.stack(vectors), torch.stack(norms))


@dataclass(frozen=True, slots=True)
class WideStates:
    """Hidden states in float32 or better with their norms.

    states: (batch, tokens, d), zeros at padding. norms and reciprocals: their norms and one over these, (batch,
    tokens). The reciprocal of a norm below the smallest normal number is finite.
    """

    states: torch.Tensor
    norms: torch.Tensor
    reciprocals: torch.Tensor

    def to(self, device: torch.device) -> WideStates:
        """Return the same states on another device."""
        return WideStates(self.states.to(device), self.norms.to(device), self.reciprocals.to(device))

    @property
    def last_units(self) -> torch.Tensor:
        """The last token's state divided by its norm, (batch, d); zeros for a state of norm zero."""
        return self.states[:, -1] * self.reciprocals[:, -1:]


class GroupSums:
    """Sums of unit vectors over the image, text and instruction tokens of a batch.

    The mean cosine over all pairs of two groups is the dot product of their mean unit vectors. This needs
    O(tokens x d) operations, a matrix of cosines O(tokens^2 x d). A state of norm zero has no direction: its cosines
    count as 0, so it adds nothing to a sum but counts in the mean.
    """

    def __init__(self, groups: TokenGroups) -> None:
        self._masks = torch.stack([groups.image, groups.text, groups.instruction], dim=1)
        self._counts = self._masks.sum(-1)
        self._padded = not bool(groups.real.all())
        self._real = groups.real.unsqueeze(-1)
        self._weights: dict[tuple[torch.dtype, torch.device], torch.Tensor] = {}

    def __call__(self, states: torch.Tensor) -> UnitSums:
        """Return the sums of the unit vectors of each group, in float32 or better.

        Args:
            states: hidden states, (batch, tokens, d).
        """
        return self.sums(self.widen(states))

    def widen(self, states: torch.Tensor) -> WideStates:
        """Return hidden states (batch, tokens, d) in float32 or better with their norms."""
        wide = upcast(states)
        if self._padded:
            # States of padding may hold NaN, and 0 x NaN would reach the sums.
            wide = torch.where(self._real.to(wide.device), wide, 0.0)
        norms = torch.linalg.vector_norm(wide, dim=-1)
        # Below `tiny` the reciprocal overflows, and such a small state would not change a float32 sum of unit vectors.
        # NaN is preserved and reaches the sums.
        reciprocals = norms.clamp(min=_tiny(wide)).reciprocal_()
        return WideStates(wide, norms, reciprocals)

    def sums(self, wide: WideStates) -> UnitSums:
        """Return the sums of the unit vectors of each group."""
        weights = self._weights_like(wide.states) * wide.reciprocals.unsqueeze(1)
        return UnitSums(torch.bmm(weights, wide.states), wide.norms)

    def step_cosines(self, before: WideStates, after: WideStates) -> torch.Tensor:
        """Return the mean cosine of a token's states at two residual points, (batch, 2): image and text tokens.

        The result is on the device of `after`.
        """
        before = before.to(after.states.device)
        # One product of the reciprocals after the other, because both together can overflow.
        cosines = torch.einsum("btd,btd->bt", before.states, after.states) * before.reciprocals * after.reciprocals
        weights = self._weights_like(cosines)[:, :2]
        return torch.bmm(weights, cosines.unsqueeze(-1)).squeeze(-1) / weights.sum(-1)

    def norm_ratio(self, sums: UnitSums) -> torch.Tensor:
        """Return the mean norm of image states over that of text states, (batch,); stacked sums add a first axis."""
        weights = self._weights_like(sums.norms)[:, :2]
        means = torch.matmul(weights, sums.norms.unsqueeze(-1)).squeeze(-1) / weights.sum(-1)
        return means[..., 0] / means[..., 1]

    def _weights_like(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the masks of the groups, (batch, 3, tokens), with the dtype and on the device of a tensor."""
        key = (tensor.dtype, tensor.device)
        if key not in self._weights:
            self._weights[key] = self._masks.to(device=tensor.device, dtype=tensor.dtype)
        return self._weights[key]

    def similarities(self, sums: UnitSums) -> torch.Tensor:
        """Return the mean cosines across and within the groups.

        Args:
            sums: a result of `__call__`, or several of them stacked.

        Returns:
            (batch, 5), or (points, batch, 5) for stacked sums. Columns: image-text and image-instruction over all
            pairs, then image, text and instruction over ordered pairs of different tokens. Within a group this is
            (|sum|^2 - units) / (n (n - 1)), where `units` subtracts the products of states with themselves: 1 for
            each state with a direction.
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
        """Return the mean unit vectors of image and text tokens, (batch, 2, d); stacked sums add a first axis."""
        return sums.vectors[..., :2, :] / self._counts[:, :2].unsqueeze(-1)


def _tiny(tensor: torch.Tensor) -> float:
    """Return the smallest norm of a state that has a direction."""
    return float(torch.finfo(tensor.dtype).tiny)


def between_samples(image_means: torch.Tensor, text_means: torch.Tensor) -> torch.Tensor:
    """Return the mean cosines between the image tokens of each sample and the text tokens of each sample.

    From these cosines `inter_adjusted` can be computed over any subset of the samples without the vectors.

    Args:
        image_means: mean unit vectors of the image tokens, (samples, points, d).
        text_means: mean unit vectors of the text tokens, (samples, points, d).

    Returns:
        (points, samples, samples); the second axis is the sample of the image, the third that of the text.
    """
    return torch.bmm(image_means.transpose(0, 1), text_means.permute(1, 2, 0))


def adjusted(image_means: torch.Tensor, text_means: torch.Tensor) -> torch.Tensor:
    """Return the inter-modal similarity minus its value between samples, per sample and residual point.

    The subtracted value is the mean cosine between the image tokens of one sample and the text tokens of all others.
    It is the part of the similarity that needs no common input (anisotropy; Ethayarajh 2019).

    Args:
        image_means: mean unit vectors of the image tokens, (samples, points, d).
        text_means: mean unit vectors of the text tokens, (samples, points, d).

    Returns:
        (samples, points).

    Raises:
        ValueError: there are fewer than two samples.
    """
    n = len(image_means)
    if n < 2:
        raise ValueError("the anisotropy adjustment compares samples with each other: measure at least two")
    others = (text_means.sum(0, keepdim=True) - text_means) / (n - 1)
    return ((image_means * text_means).sum(-1)) - ((image_means * others).sum(-1))
