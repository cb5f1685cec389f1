"""Faults in attention masks, positions and vision towers, planted into the installed transformers."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch

Patch = pytest.MonkeyPatch


def modelling(model_type: str) -> Any:
    """Return the module of transformers that defines the models of a type."""
    return importlib.import_module(f"transformers.models.{model_type}.modeling_{model_type}")


def scale_still_images(patch: Patch) -> None:
    """Multiply the temporal position of a still image by the tokens per second, as for a video."""
    model = modelling("qwen2_5_vl").Qwen2_5_VLModel
    original = model.get_vision_position_ids

    def scaled(
        self: Any, start: int, grid: Any, temporal: int = 1, spatial: int = 1, interval: Any = 1, **options: Any
    ) -> Any:
        positions = original(self, start, grid, temporal, spatial, interval, **options)
        if int(grid[0]) == 1:
            positions[0] = start * self.config.vision_config.tokens_per_second
        return positions

    patch.setattr(model, "get_vision_position_ids", scaled)


def swap_tiles(patch: Patch) -> None:
    """Exchange rows and columns of the grid of tiles."""
    module = modelling("llava_next")
    original = module.get_anyres_image_grid_shape
    patch.setattr(module, "get_anyres_image_grid_shape", lambda *arguments: original(*arguments)[::-1])


def lose_image_mask(patch: Patch) -> None:
    """Build the causal mask only: the tokens of an image no longer see each other in both directions."""
    module = modelling("gemma3")

    def causal(block_sequence_ids: Any, **options: Any) -> Any:
        return module.create_masks_for_generate(**options)

    patch.setattr(module, "create_masks_for_vision_model", causal)


def join_images(patch: Patch) -> None:
    """Let the tokens of every image see all other images, also later ones."""
    module = modelling("gemma3")

    def joined(token_type_ids: torch.Tensor, device: Any = None) -> torch.Tensor:
        return torch.where(token_type_ids == 1, 0, -1).to(device)

    patch.setattr(module, "get_block_sequence_ids_for_mask", joined)


def cross_window(patch: Patch) -> None:
    """Let the tokens of an image see each other beyond the sliding window."""
    module = modelling("gemma3")
    patch.setattr(module, "create_masks_for_vision_model", module.create_masks_for_generate)


def _unmask_pads(patch: Patch, *, only_in_training: bool) -> None:
    module = modelling("paligemma")
    original, forward = module.create_causal_mask, module.PaliGemmaModel.forward
    training = []

    def remember(self: Any, *arguments: Any, **options: Any) -> Any:
        training[:] = [self.training]
        return forward(self, *arguments, **options)

    def unmasked(block_sequence_ids: torch.Tensor | None = None, **options: Any) -> Any:
        mask = original(block_sequence_ids=block_sequence_ids, allow_is_causal_skip=False, **options)
        if block_sequence_ids is None or (only_in_training and not training[0]):
            return mask
        prefix = (block_sequence_ids == 0)[:, None, None, :]
        return mask | prefix if mask.dtype == torch.bool else mask.masked_fill(prefix, 0.0)

    patch.setattr(module.PaliGemmaModel, "forward", remember)
    patch.setattr(module, "create_causal_mask", unmasked)


def unmask_pads(patch: Patch) -> None:
    """Unmask the prefix after the pads were masked, so that left pads are seen."""
    _unmask_pads(patch, only_in_training=False)


def unmask_pads_in_training(patch: Patch) -> None:
    """Unmask the prefix after the pads were masked, in training mode only."""
    _unmask_pads(patch, only_in_training=True)


def assume_prefix(patch: Patch) -> None:
    """Treat a prompt without token types as a prefix, as releases before 5.9.0 did."""
    model = modelling("paligemma").PaliGemmaModel
    forward = model.forward

    def typed(self: Any, input_ids: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        if options.get("token_type_ids") is None:
            options["token_type_ids"] = torch.zeros_like(input_ids)
        return forward(self, input_ids, *arguments, **options)

    patch.setattr(model, "forward", typed)


def add_boolean_mask(patch: Patch) -> None:
    """Add the mask of the vision tower to the scores as 0 and 1, so that all images of a batch see each other."""
    module = modelling("qwen2_vl")

    def attend(self: Any, hidden_states: Any, cu_seqlens: Any, position_embeddings: Any = None, **_: Any) -> Any:
        length = hidden_states.shape[0]
        parts = self.qkv(hidden_states).reshape(length, 3, self.num_heads, -1).permute(1, 0, 2, 3).unbind(0)
        query, key = module.apply_rotary_pos_emb_vision(*parts[:2], *position_embeddings)
        image = torch.bucketize(torch.arange(length), cu_seqlens, right=True)
        scores = torch.einsum("qhd,khd->hqk", query, key) * self.scaling + (image[:, None] == image).float()
        mixed = torch.einsum("hqk,khd->qhd", scores.softmax(dim=-1), parts[2])
        return self.proj(mixed.reshape(length, -1))

    patch.setattr(module.VisionAttention, "forward", attend)


def compute_vision_eagerly(patch: Patch) -> None:
    """Replace the attention backend of the vision tower by plain matrix products."""
    module = modelling("qwen2_vl")
    forward = module.VisionAttention.forward

    def eager(self: Any, *arguments: Any, **options: Any) -> Any:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(self.config, "_attn_implementation_internal", "eager")
            return forward(self, *arguments, **options)

    patch.setattr(module.VisionAttention, "forward", eager)


def shrink_coordinates(patch: Patch) -> None:
    """Multiply the coordinates of patches by 1 - 1e-6, so that they fall into the bin before their own."""
    original = torch.bucketize
    patch.setattr(
        torch, "bucketize", lambda places, *bounds, **options: original(places * (1 - 1e-6), *bounds, **options)
    )
