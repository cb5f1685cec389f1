"""The noise control: noise replaces the image features, so that no layer receives the image."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from harness.models.anatomy import Anatomy


def noise_like(states: torch.Tensor, image: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
    """Return the states with Gaussian noise at the image positions, of the same norm per token.

    Args:
        states: residual point 0, (batch, tokens, d).
        image: positions of the image tokens, bool (batch, tokens).
        seeds: one per row; a row's noise depends only on its seed, not on the device.

    Returns:
        (batch, tokens, d), in the dtype of `states`.
    """
    noisy = states.clone()
    for row, seed in enumerate(seeds):
        generator = torch.Generator().manual_seed(seed)
        positions = image[row].to(states.device)
        features = states[row, positions]
        noise = torch.randn(features.shape, generator=generator, dtype=torch.float32).to(states.device)
        scale = torch.linalg.vector_norm(features.float(), dim=-1) / torch.linalg.vector_norm(noise, dim=-1)
        noisy[row, positions] = (noise * scale.unsqueeze(-1)).to(states.dtype)
    return noisy


def noise_seed(sample_id: str, seed: int) -> int:
    """Return the noise seed of a sample, which does not depend on the batch or the order of the samples."""
    return int.from_bytes(hashlib.sha256(f"{seed} {sample_id}".encode()).digest()[:7], "big")


@contextlib.contextmanager
def replace_features_by_noise(anatomy: Anatomy, image: torch.Tensor, seeds: Sequence[int]) -> Iterator[None]:
    """Replace the image features by noise before the first decoder layer, for the forward passes inside the block.

    Enter it before `observing`, so that the observed states are the layers' inputs. Some models also add image features
    to the image tokens between later layers: these additions become noise of the same norm.
    """
    layer_output: list[torch.Tensor] = []

    def noisy(point: int, states: torch.Tensor) -> torch.Tensor | None:
        if point == 0:
            return noise_like(states, image, seeds)
        if not layer_output:
            return None
        positions = image.to(states.device)
        before, after = layer_output.pop(), states[positions]
        if torch.equal(before, after):
            return None
        added = torch.zeros_like(states)
        added[positions] = after - before
        states = states.clone()
        states[positions] = before + noise_like(added, image, [seed + point for seed in seeds])[positions]
        return states

    def remember(_: nn.Module, __: Any, output: Any) -> None:
        states = output[0] if isinstance(output, tuple) else output
        # A copy, because the model may add image features in place.
        layer_output[:] = [states[image.to(states.device)].clone()]

    with contextlib.ExitStack() as stack:
        for layer in anatomy.layers:
            stack.callback(layer.register_forward_hook(remember).remove)
        stack.enter_context(anatomy.residual_points(noisy))
        yield
