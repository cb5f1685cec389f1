"""The error of a model's weights, its files and its settings."""

from __future__ import annotations

from harness.errors import PhaseError


class WeightsError(PhaseError):
    """The weights of a model cannot be had; the message says what, where and what to do."""
