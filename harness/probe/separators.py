"""Separators: learned vectors among the image tokens that do not depend on the image, such as row ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from harness.errors import is_out_of_memory
from harness.models.anatomy import Anatomy
from harness.models.forward_pass import prompt_options
from harness.models.prompts.hashes import map_tensors
from harness.models.prompts.prompt import Batch, TokenGroups
from harness.models.vlm import Vlm

#: Declared with the measurements of models that have separators.
SEPARATOR_POLICY = "image features, without learned vectors between them, which count as neither image nor text"

#: True for models whose first batch had separators.
_SEPARATED: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


class _ImageReachedError(Exception):
    """End of a pass at the first residual point that depends on the image."""


def has_separators(model: nn.Module) -> bool:
    """Return True if the first batch of the model had separators among its image tokens."""
    return _SEPARATED.get(model, False)


def exclude_separators(vlm: Vlm, batch: Batch) -> Batch:
    """Return the batch with its separators in `other` instead of `image`, like the row ends of other models.

    It costs a pass through the vision tower. A model without separators in its first batch is not tested again.
    """
    if not _SEPARATED.get(vlm.model, True):
        return batch
    separators = find_separators(vlm.model, vlm.anatomy, vlm.to_device(batch.inputs), batch.groups.image)
    _SEPARATED.setdefault(vlm.model, bool(separators.any()))
    return replace(batch, groups=assign_separators_to_other(batch.groups, separators)) if separators.any() else batch


def assign_separators_to_other(groups: TokenGroups, separators: torch.Tensor) -> TokenGroups:
    """Return the groups with the separators, bool (batch, tokens), in `other` instead of `image`."""
    return replace(groups, image=groups.image & ~separators, other=groups.other | separators)


def find_separators(model: Any, anatomy: Anatomy, inputs: Mapping[str, Any], image: torch.Tensor) -> torch.Tensor:
    """Return the image positions whose features do not depend on the image, bool (batch, tokens).

    The pixels are replaced by NaN, which propagates to every value computed from them. The pass ends at the first
    residual point that contains NaN. A row where at least half of the image positions stay finite has no
    separators, because a model that maps pixels to vocabulary codes removes the NaN at all positions.

    Args:
        model: a transformers model.
        anatomy: the parts of the model.
        inputs: model inputs on the model's device.
        image: positions of the image features, bool (batch, tokens).
    """
    reached: list[torch.Tensor] = []

    def stop_at_image(_: int, states: torch.Tensor) -> None:
        if states.shape[:2] != image.shape:
            return
        is_nan = states.isnan().any(-1).to(image.device)
        if bool(is_nan.any()):
            reached.append(is_nan)
            raise _ImageReachedError

    with anatomy.residual_points(stop_at_image), torch.inference_mode():
        try:
            model(
                **{name: map_tensors(_with_nan_pixels, value) for name, value in inputs.items()},
                **prompt_options(model),
            )
        except _ImageReachedError:
            pass
        except Exception as error:  # Models may raise any error on NaN; a real fault shows in the pass with pixels.
            if is_out_of_memory(error):
                raise
    if not reached or bool((reached[0] & ~image).any()):
        return torch.zeros_like(image)
    remaining = image & ~reached[0]
    return remaining & (2 * remaining.sum(1, keepdim=True) < image.sum(1, keepdim=True))


def _with_nan_pixels(value: torch.Tensor) -> torch.Tensor:
    if not value.is_floating_point():
        return value
    # A column without a fraction may hold positions or counts instead of pixels, so it is not replaced. A single whole
    # number is no evidence, because white and black pixels are whole numbers in some models. If no value has a
    # fraction, all values but zeros count as pixels.
    fractions = value != value.round()
    pixels = fractions.reshape(-1, *value.shape[-1:]).any(0) if bool(fractions.any()) else value != 0
    return value.masked_fill(pixels, torch.nan)
