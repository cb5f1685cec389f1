"""An image processor that refuses narrow images, like those of many models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from PIL import Image

from harness.data.sample import Sample
from harness.models.vlm import Vlm

#: Minimum length of an image's shorter side in pixels, and the error for smaller images.
SMALLEST_SIDE = 8
REFUSAL = "ValueError: height and width must be larger than 8"


class PickyImageProcessor:
    """A wrapper of an image processor that refuses images with a short side."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __call__(self, images: Any, *args: Any, **kwargs: Any) -> Any:
        flat = [image for entry in images for image in (entry if isinstance(entry, list) else [entry])]
        if any(min(image.size) < SMALLEST_SIDE for image in flat):
            raise ValueError(REFUSAL.removeprefix("ValueError: "))
        return self.inner(images, *args, **kwargs)


def make_picky(vlm: Vlm) -> Vlm:
    """Make the model's processor refuse narrow images."""
    vlm.processor.image_processor = PickyImageProcessor(vlm.processor.image_processor)
    return vlm


def with_narrow_image(sample: Sample) -> Sample:
    """Return the sample with an image that the processor refuses."""
    return replace(sample, load_image=lambda: Image.new("RGB", (1200, 5), "red"))
