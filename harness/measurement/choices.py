"""Choices that only some models ask for, declared with a profile and its baseline."""

from __future__ import annotations

from harness.models.prompts.chat import template_date
from harness.models.vlm import Vlm
from harness.probe.separators import SEPARATOR_POLICY, has_separators


def model_choices(vlm: Vlm) -> dict[str, str]:
    """Return the declared choices of a model beside those that hold for all; empty for most models."""
    choices = {
        "template_date": template_date(vlm.processor),
        "image_tokens": SEPARATOR_POLICY if has_separators(vlm.model) else "",
    }
    return {name: choice for name, choice in choices.items() if choice}
