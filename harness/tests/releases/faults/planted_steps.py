"""Faults in generation and in the mapping of weights, planted into the installed transformers."""

from __future__ import annotations

from functools import wraps
from typing import Any

import torch

from harness.tests.releases.faults.planted_masks import Patch, modelling


def misplace_padded_steps(patch: Patch) -> None:
    """Add an offset that counts left pads to positions that do not: wrong in the cached steps of padded samples."""
    model = modelling("qwen2_5_vl").Qwen2_5_VLForConditionalGeneration
    original = model.prepare_inputs_for_generation

    # Transformers refuses inputs that the signature does not name.
    @wraps(original)
    def misplaced(self: Any, *arguments: Any, **options: Any) -> Any:
        inputs = original(self, *arguments, **options)
        if inputs["position_ids"].shape[-1] == 1:
            pads = (options["attention_mask"] == 0).sum(dim=-1)
            # The first row holds positions in the text, the others positions in time, height and width.
            inputs["position_ids"] = inputs["position_ids"] - torch.tensor([0, 1, 1, 1])[:, None, None] * pads[:, None]
        return inputs

    patch.setattr(model, "prepare_inputs_for_generation", misplaced)


def forget_seconds(patch: Patch) -> None:
    """Compute the positions for generation without the seconds between the frames of a video."""
    model = modelling("qwen2_5_vl").Qwen2_5_VLForConditionalGeneration
    original = model._prepare_position_ids_for_generation

    def forgetful(self: Any, inputs_tensor: Any, model_kwargs: dict[str, Any]) -> Any:
        return original(self, inputs_tensor, {**model_kwargs, "second_per_grid_ts": None})

    patch.setattr(model, "_prepare_position_ids_for_generation", forgetful)


def map_to_other_type(patch: Patch) -> None:
    """Load the checkpoint of one type with the mapping of another type, whose model has one more level."""
    from transformers import conversion_mapping
    from transformers.core_model_loading import PrefixChange

    original = conversion_mapping.get_checkpoint_conversion_mapping

    def mapped(name: str) -> Any:
        return [PrefixChange(prefix_to_add="model", model_prefix="model")] if name == "llava" else original(name)

    patch.setattr(conversion_mapping, "get_checkpoint_conversion_mapping", mapped)
