"""The names and keys of cached readings, and the witness row that detects changes which the key does not cover."""

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
from harness.probe.readings import Readings
from harness.probe.vocabulary import LENS_POLICY
from harness.profile.environment import environment
from harness.storage.file_names import text_digest
from harness.storage.json_text import checksum

# Incremented whenever this code would measure other values than the cached readings.
MEASUREMENT_VERSION = 5
#: The choice of residual points and text tokens, as declared in profiles.
POLICY = {
    "residual_points": "inputs of the decoder layers and of the final norm; post_norm apart",
    "text_tokens": "all but image tokens, what stands between them, BOS and padding",
}
# Largest difference of a cached witness row to the current one, by data type.
_TOLERANCES = {torch.float64: 1e-5, torch.float32: 1e-5}


def witness_row(first: Readings) -> Any:
    """Return the readings of the first samples in one row, to detect changes that the weights do not show.

    For example, a new version of transformers may change the readings with the same weights.
    """
    # A hook or an adapter on the head changes only the lens.
    lens = (first.hits, first.exit_agreement)
    arrays = (first.similarity, first.post_norm, first.norm_shares, first.weight_shares, *lens)
    return np.concatenate([np.ravel(array) for array in arrays if array is not None])


def reading_name(sample: Sample, hashes: InputHashes, words: Words, chance_words: Words) -> str:
    """Return the cache name of a sample's readings, a hash of all its inputs that the key does not cover."""
    return text_digest(json.dumps([sample.id, hashes.tokens, hashes.pixels, words, chance_words]), 32)


def witness_tolerance(dtype: torch.dtype) -> float:
    """Return the largest difference of two witness rows at which a cached reading is used."""
    return _TOLERANCES.get(dtype, 2e-2)


def reading_cache_key(
    vlm: Vlm,
    weights: str,
    configuration: Mapping[str, Any],
    batch_size: int,
    witnesses: Sequence[Sample],
    instruction: str | None = None,
) -> dict[str, Any]:
    """Return everything that a reading depends on except the sample, with the ids of the witness samples.

    `instruction` replaces that of all samples; None if they keep their own.
    """
    # The readings of the witness samples depend on their instruction too.
    replaced = {} if instruction is None else {"instruction": instruction}
    return {
        "measurement": MEASUREMENT_VERSION,
        "model": vlm.name,
        "weights": weights,
        "configuration": checksum(configuration),
        "environment": asdict(environment(vlm.device, vlm.dtype, vlm.attention)),
        "batch_size": batch_size,
        "policy": {**POLICY, "lens": LENS_POLICY, "likelihood": LIKELIHOOD_POLICY, "lens_ks": list(KS)},
        "witnesses": [sample.id for sample in witnesses],
        **replaced,
    }
