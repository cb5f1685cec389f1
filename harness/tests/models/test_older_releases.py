"""Differences of older transformers releases, simulated on the installed release."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from transformers import LlavaProcessor

from harness.models.bundled.checkpoint import flat_name, pillow_processor
from harness.models.prompts.prompt import encode
from harness.tests.support.tiny import tiny_samples, tiny_vlm


class OlderProcessor(LlavaProcessor):
    """A processor before 5.10: common arguments do not reach parts that have arguments of their own."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        assert "text_kwargs" in kwargs
        kwargs.pop("return_tensors", None)
        return super().__call__(*args, **kwargs)


def test_tensors_are_requested_from_each_part_of_a_processor() -> None:
    vlm = tiny_vlm()
    plain = encode(vlm.processor, tiny_samples(), vlm.anatomy.image_positions)
    vlm.processor.__class__ = OlderProcessor
    older = encode(vlm.processor, tiny_samples(), vlm.anatomy.image_positions)
    assert older.hashes == plain.hashes
    assert all(torch.equal(older.inputs[name], plain.inputs[name]) for name in plain.inputs)


def test_the_plain_image_processor_is_used_if_there_is_no_pillow_class(monkeypatch: pytest.MonkeyPatch) -> None:
    older, pillow = type("Older", (), {}), type("Pillow", (), {})
    monkeypatch.setattr(transformers, "SomeImageProcessor", older, raising=False)
    assert pillow_processor("SomeImageProcessor") is older
    monkeypatch.setattr(transformers, "SomeImageProcessorPil", pillow, raising=False)
    assert pillow_processor("SomeImageProcessor") is pillow


def test_flat_names_omit_the_wrapper_of_clip_towers() -> None:
    assert flat_name("model.vision_tower.vision_model.encoder.weight") == "model.vision_tower.encoder.weight"
    assert flat_name("vision_model.encoder.weight") == "vision_model.encoder.weight"
