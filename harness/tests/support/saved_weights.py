"""The hash of a model's weights."""

from __future__ import annotations

from torch import nn

from harness.profile.environment import weight_hashes


def hash_weights(model: nn.Module) -> str:
    """Return the SHA-256 (16 hex digits) over all parameters and buffers, including non-persistent buffers."""
    return weight_hashes(model)[0]
