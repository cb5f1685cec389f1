"""Learned vectors among the image tokens that come from no picture, such as the ends of rows."""

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

#: True for models in whose first batch separators were seen.
_SEPARATED: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


class _PictureReachedError(Exception):
    """Ends a pass at the first residual point that the picture has reached."""


def has_separators(model: nn.Module) -> bool:
    """Return True if separators were seen among the image tokens of the first batch of the model."""
    return _SEPARATED.get(model, False)


def exclude_separators(vlm: Vlm, batch: Batch) -> Batch:
    """Return the batch with its separators in `other` instead of `image`, as the row ends of other models are.

    Costs a pass through the vision tower; a model without separators in its first batch is not asked again.
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
    """Return the image positions whose features do not depend on the picture, bool (batch, tokens).

    The pixels are replaced by NaN, which every number that is computed from them becomes too. The pass ends where the
    picture first reaches the residual stream. Rows where nothing or most of it stays a number have no separators: codes
    of a vocabulary hide the pixels from all of them.

    Args:
        model: a transformers model.
        anatomy: its parts.
        inputs: model inputs on the model's device.
        image: positions of the image features, bool (batch, tokens).
    """
    reached: list[torch.Tensor] = []

    def look(_: int, states: torch.Tensor) -> None:
        if states.shape[:2] != image.shape:
            return
        lost = states.isnan().any(-1).to(image.device)
        if bool(lost.any()):
            reached.append(lost)
            raise _PictureReachedError

    with anatomy.residual_points(look), torch.inference_mode():
        try:
            model(**{name: map_tensors(_lost, value) for name, value in inputs.items()}, **prompt_options(model))
        except _PictureReachedError:
            pass
        except Exception as error:  # Models raise what they like at NaN; the pass with the picture says what is wrong.
            if is_out_of_memory(error):
                raise
    if not reached or bool((reached[0] & ~image).any()):
        return torch.zeros_like(image)
    kept = image & ~reached[0]
    return kept & (2 * kept.sum(1, keepdim=True) < image.sum(1, keepdim=True))


def _lost(value: torch.Tensor) -> torch.Tensor:
    if not value.is_floating_point():
        return value
    # A column of whole numbers may be places or counts beside the pixels. White and black are whole numbers in some
    # models, so a number alone tells nothing. A picture of nothing but whole numbers is all pixels.
    fractions = value != value.round()
    pixels = fractions.reshape(-1, *value.shape[-1:]).any(0) if bool(fractions.any()) else value != 0
    return value.masked_fill(pixels, torch.nan)
