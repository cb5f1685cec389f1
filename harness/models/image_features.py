"""The number of image features that a model makes of a batch, by its own code."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def count_image_features(model: Any, inputs: Mapping[str, Any]) -> int | None:
    """Return how many image features the model makes of a batch, by its own `get_image_features`.

    None where it has no such method, or where that wants more than the inputs, as in some older releases.
    """
    if not hasattr(model, "get_image_features"):
        return None
    # A Q-Former reads the instruction beside the picture, so its ids belong to the features too.
    asked = inspect.signature(model.get_image_features).parameters
    if any(key not in inputs and _required(parameter) for key, parameter in asked.items()):
        return None
    given = {key: value for key, value in inputs.items() if key in asked or _is_floating(value)}
    with torch.inference_mode():
        made = getattr(model.get_image_features(**given, return_dict=True), "pooler_output", None)
    return None if made is None else sum(int(np.prod(part.shape[:-1])) for part in made)


def _is_floating(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _required(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind not in (
        parameter.VAR_KEYWORD,
        parameter.VAR_POSITIONAL,
    )
