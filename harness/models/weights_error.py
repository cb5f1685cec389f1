"""The error for a model's weights, files and settings."""

from __future__ import annotations

from harness.errors import PhaseError


class WeightsError(PhaseError):
    """The weights of a model are unavailable or unusable; the message states what, where and the remedy."""
