"""A fault of image processors, planted into the installed transformers."""

from __future__ import annotations

from typing import Any

import torch

from harness.tests.releases.faults.planted_masks import Patch


def resize_by_tensors(patch: Patch) -> None:
    """Give the image processor the name of a fast one, and resize pictures by tensor operations as that does."""
    from transformers import image_processing_backends
    from transformers.models.auto import image_processing_auto

    original = image_processing_auto.get_image_processor_class_from_name

    def resize(image: Any, size: Any, **_: Any) -> Any:
        tensor = torch.from_numpy(image)[None]
        return torch.nn.functional.interpolate(tensor, size=size, mode="bicubic", antialias=True)[0].numpy()

    patch.setattr(image_processing_backends, "np_resize", resize)
    patch.setattr(image_processing_auto, "get_image_processor_class_from_name", lambda name: _as_fast(original(name)))


def _as_fast(slow: Any) -> Any:
    return slow and type(slow.__name__.replace("Pil", "Fast"), (slow,), {"__module__": slow.__module__})
