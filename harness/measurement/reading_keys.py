"""What kept readings depend on: their names, the key of their store, and the row that stands witness for them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from harness.data.sample import Sample
from harness.models.likelihood import LIKELIHOOD_POLICY
from harness.models.prompts.hashes import InputHashes
from harness.models.vlm import Vlm
from harness.probe.lens_task import KS, Words
from harness.probe.observation import Readings
from harness.probe.vocabulary import LENS_POLICY
from harness.profile.environment import environment
from harness.storage.file_names import text_digest
from harness.storage.json_text import checksum

# Raised by one whenever a stored reading would no longer be what this code measures.
MEASUREMENT_VERSION = 4
#: How residual points and text tokens are chosen, as profiles declare it.
POLICY = {
    "residual_points": "inputs of the decoder layers and of the final norm; post_norm apart",
    "text_tokens": "all but image tokens, what stands between them, BOS and padding",
}
# A stored reading is believed only if the drawn samples, measured anew, are this close to what they were beside it.
_TOLERANCES = {torch.float64: 1e-5, torch.float32: 1e-5}


def witness_row(first: Readings) -> Any:
    """What the drawn samples give now, in one row: a change that no weight shows, as in the code, shows here."""
    # A hook or another adapter on the head shows in what the lens reads alone.
    lens = (first.hits, first.exit_agreement)
    arrays = (first.similarity, first.post_norm, first.norm_shares, first.weight_shares, *lens)
    return np.concatenate([np.ravel(array) for array in arrays if array is not None])


def reading_name(sample: Sample, hashes: InputHashes, own: Words, chance: Words) -> str:
    """Under which name the readings of a sample are kept: all that they depend on beside the store's key."""
    return text_digest(json.dumps([sample.id, hashes.tokens, hashes.pixels, own, chance]), 32)


def witness_tolerance(dtype: torch.dtype) -> float:
    """How close the drawn samples, measured anew, must be to what they were beside a reading that is believed."""
    return _TOLERANCES.get(dtype, 2e-2)


def reading_cache_key(
    vlm: Vlm, weights: str, configuration: Mapping[str, Any], batch_size: int, witnesses: Sequence[Sample]
) -> dict[str, Any]:
    """Everything but the sample that a reading depends on, and whose readings stand witness for it."""
    return {
        "measurement": MEASUREMENT_VERSION,
        "model": vlm.name,
        "weights": weights,
        "configuration": checksum(configuration),
        "environment": asdict(environment(vlm.device, vlm.dtype, vlm.attention)),
        "batch_size": batch_size,
        "policy": {**POLICY, "lens": LENS_POLICY, "likelihood": LIKELIHOOD_POLICY, "lens_ks": list(KS)},
        "witnesses": [sample.id for sample in witnesses],
    }
