"""The noise control: during a forward pass the image features give way to noise, so that no picture reaches a layer."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from harness.models.anatomy import Anatomy


def noise_like(states: torch.Tensor, image: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
    """Return the states with Gaussian noise of the same norm per token at the image positions.

    Args:
        states: residual point 0, (batch, tokens, d).
        image: positions of the image tokens, bool (batch, tokens).
        seeds: one per row; a row's noise depends on nothing else, not even on the device.

    Returns:
        (batch, tokens, d), in the dtype of `states`.
    """
    noisy = states.clone()
    for row, seed in enumerate(seeds):
        generator = torch.Generator().manual_seed(seed)
        at = image[row].to(states.device)
        features = states[row, at]
        noise = torch.randn(features.shape, generator=generator, dtype=torch.float32).to(states.device)
        scale = torch.linalg.vector_norm(features.float(), dim=-1) / torch.linalg.vector_norm(noise, dim=-1)
        noisy[row, at] = (noise * scale.unsqueeze(-1)).to(states.dtype)
    return noisy


def noise_seed(sample_id: str, seed: int) -> int:
    """The seed of one sample's noise: its own, so that neither batch nor order of the samples changes its noise."""
    return int.from_bytes(hashlib.sha256(f"{seed} {sample_id}".encode()).digest()[:7], "big")


@contextlib.contextmanager
def replace_features_by_noise(anatomy: Anatomy, image: torch.Tensor, seeds: Sequence[int]) -> Iterator[None]:
    """Replace the image features by noise before the first decoder layer, for the forward passes inside the block.

    Enter it before `observing`, so that what is observed is what the layers get. Some models feed their picture to
    later layers as well, by adding to the image tokens between two layers: what is added becomes noise of its norm.
    """
    kept: list[torch.Tensor] = []

    def noisy(point: int, states: torch.Tensor) -> torch.Tensor | None:
        if point == 0:
            return noise_like(states, image, seeds)
        if not kept:
            return None
        at = image.to(states.device)
        before, after = kept.pop(), states[at]
        if torch.equal(before, after):
            return None
        added = torch.zeros_like(states)
        added[at] = after - before
        states = states.clone()
        states[at] = before + noise_like(added, image, [seed + point for seed in seeds])[at]
        return states

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        states = output[0] if isinstance(output, tuple) else output
        # A copy, because what follows may be added in place.
        kept[:] = [states[image.to(states.device)].clone()]

    with contextlib.ExitStack() as stack:
        for layer in anatomy.layers:
            stack.callback(layer.register_forward_hook(keep).remove)
        stack.enter_context(anatomy.residual_points(noisy))
        yield
