"""Controls: the same prompts with the picture taken out, so that a curve can be held against what needs no picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from PIL import Image

from harness.data.sample import Sample

#: Every control by name, with what it puts in the picture's place.
CONTROLS: Mapping[str, str] = MappingProxyType(
    {
        "noise": "image features replaced by seeded Gaussian noise of the same norm per token",
        "blank": "a uniform grey picture of the same size, through the vision tower",
    }
)
_GREY = (128, 128, 128)


def blanked(sample: Sample) -> Sample:
    """The sample with a uniform grey picture of the same size in the place of its own."""
    return replace(sample, picture=lambda: Image.new("RGB", sample.picture().size, _GREY))
