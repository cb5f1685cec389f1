"""Hooks that a conftest or a plugin can implement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.models.vlm import Vlm


def pytest_phase_model_loaded(vlm: Vlm, config: pytest.Config) -> None:
    """Called once for every loaded model before it is measured, for example to quantise it or to replace its weights.

    Args:
        vlm: model, processor and parts; change `vlm.model` in place.
        config: pytest's configuration.
    """
