"""Choices that only some models ask for, declared with a profile and its baseline."""

from __future__ import annotations

from harness.models.chat import template_date
from harness.models.vlm import Vlm


def model_choices(vlm: Vlm) -> dict[str, str]:
    """Return the declared choices of a model beside those that hold for all; empty for most models."""
    date = template_date(vlm.processor)
    return {"template_date": date} if date else {}
