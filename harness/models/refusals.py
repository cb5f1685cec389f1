"""Pictures that a processor refuses while it takes others: the fault is the picture's, not the prompt's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from PIL import Image

from harness.data.sample import Sample
from harness.models.anatomy import ImagePositions
from harness.models.chat import PromptError
from harness.models.prompt import encode

# Of a size and shape that any processor of photographs takes.
_PLAIN, _GREY = (336, 336), (128, 128, 128)


def picture_refusal(processor: Any, sample: Sample, image_positions: ImagePositions) -> str:
    """Return why a processor refuses a sample's picture; empty where it takes it.

    Also empty where it refuses a plain grey picture in its place: then the prompt is at fault, and no picture.
    """
    try:
        encode(processor, [sample], image_positions)
    except PromptError as error:
        plain = replace(sample, picture=lambda: Image.new("RGB", _PLAIN, _GREY))
        try:
            encode(processor, [plain], image_positions)
        except PromptError:
            return ""
        width, height = sample.picture().size
        return f"{type(processor).__name__} refuses its picture of {width} x {height} pixels ({_problem(error)})"
    return ""


def _problem(error: PromptError) -> str:
    """The processor's own error, or the sentence about what it gave."""
    cause = error.__cause__
    if cause is None:
        return str(error)
    lines = str(cause).strip().splitlines()
    return f"{type(cause).__name__}: {lines[0]}" if lines else type(cause).__name__
