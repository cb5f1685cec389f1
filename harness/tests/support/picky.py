"""An image processor that refuses narrow pictures, as those of many models do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from PIL import Image

from harness.data.sample import Sample
from harness.models.vlm import Vlm

#: Pixels of the shorter side from which on a picture is taken, and what is said of others.
SMALLEST_SIDE = 8
REFUSAL = "ValueError: height and width must be larger than 8"


class PickyImageProcessor:
    """An image processor like another one, but for pictures with a short side."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __call__(self, images: Any, *args: Any, **kwargs: Any) -> Any:
        flat = [picture for entry in images for picture in (entry if isinstance(entry, list) else [entry])]
        if any(min(picture.size) < SMALLEST_SIDE for picture in flat):
            raise ValueError(REFUSAL.removeprefix("ValueError: "))
        return self.inner(images, *args, **kwargs)


def make_picky(vlm: Vlm) -> Vlm:
    """Let the model's processor refuse narrow pictures."""
    vlm.processor.image_processor = PickyImageProcessor(vlm.processor.image_processor)
    return vlm


def with_narrow_image(sample: Sample) -> Sample:
    """Return the sample with a picture that is refused."""
    return replace(sample, load_image=lambda: Image.new("RGB", (1200, 5), "red"))
