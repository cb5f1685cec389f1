"""Readings of a tiny model on one prompt, as the arrays that two releases are compared by."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.models.anatomy import Anatomy
from harness.probe.precision import upcast
from harness.releases.tiny.dense_readings import observing_densely
from harness.releases.tiny.prompts import TinyPrompt, run_prompt

Arrays = dict[str, NDArray[Any]]


def read_prompt(model: Any, anatomy: Anatomy, prompt: TinyPrompt) -> Arrays:
    """Return the readings of one forward pass by name; P = L + 1 residual points.

    states: (P, batch, tokens, d), zeros at padding. image: bool (batch, tokens). similarity: (batch, P, 5), columns of
    `GroupSums.similarities`. weight_shares and norm_shares: (batch, L, 4), columns of `ShareReader`. lens: the five
    best vocabulary entries at the last token, (batch, P, 5). logits: of the last token, (batch, vocabulary).

    Raises:
        PhaseError: the harness cannot measure this model.
        Exception: any error of the model's own code.
    """
    groups = prompt.groups
    states: list[torch.Tensor] = []

    with observing_densely(model, anatomy, prompt) as observation:

        def store_states(_: int, point: torch.Tensor) -> None:
            # The lens calls the final norm too, and would be stored as further points.
            if not observation.busy:
                states.append(upcast(point).masked_fill(~groups.real.unsqueeze(-1), 0.0))

        with anatomy.residual_points(store_states):
            output = run_prompt(model, prompt.inputs)
    readings = observation.readings()
    logits = (getattr(output, "language_model_outputs", None) or output).logits[:, -1]
    arrays: dict[str, Any] = {
        "states": torch.stack(states).numpy(),
        "image": groups.image.numpy(),
        "similarity": readings.similarity,
        "weight_shares": readings.weight_shares,
        "norm_shares": readings.norm_shares,
        "lens": readings.decoded_last,
        "logits": upcast(logits).numpy(),
    }
    return {name: np.asarray(value) for name, value in arrays.items() if value is not None}
