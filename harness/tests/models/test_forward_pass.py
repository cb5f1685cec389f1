"""The forward pass over whole prompts: its arguments, and the errors if the model's code fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from harness.data.datasets import DATASETS
from harness.data.sample import Dataset, Sample
from harness.measurement.batches import SampleError
from harness.models.forward_errors import ForwardError
from harness.models.forward_pass import TokenIdError, prompt_options
from harness.models.prompts.prompt import encode
from harness.models.vlm import Vlm
from harness.probe.forward import observe
from harness.tests.support.tiny import SIDE, largest_difference, tiny_profile, tiny_samples

FAILING = "tiny-3"
pytestmark = pytest.mark.usefixtures("tiny_data")


class Wrapper(nn.Module):
    """A wrapper that passes all arguments to a model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.model(*args, **kwargs)


class Bare(nn.Module):
    """A model whose forward pass takes neither a cache nor positions of logits."""

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return input_ids


class CountingModel(nn.Linear):
    """A model that takes a number of positions."""

    def forward(self, input_ids: torch.Tensor, logits_to_keep: int = 0, use_cache: bool = True) -> torch.Tensor:  # type: ignore[override]
        return input_ids[:, -logits_to_keep:]


def test_logits_are_requested_by_positions_and_not_by_a_number(vlm: Vlm) -> None:
    for model in (vlm.model, Wrapper(vlm.model)):
        options = prompt_options(model, 2)
        assert options.pop("logits_to_keep").tolist() == [-2, -1]
        assert options == {"use_cache": False}


def test_a_model_gets_only_arguments_that_it_accepts() -> None:
    assert prompt_options(Bare()) == {}
    assert prompt_options(Wrapper(Bare())) == {"use_cache": False}
    assert prompt_options(CountingModel(1, 1)) == {"use_cache": False, "logits_to_keep": 1}


def test_positions_are_a_slice_if_a_model_is_on_several_devices(fresh_vlm: Vlm) -> None:
    fresh_vlm.model.hf_device_map = {"model": 0, "lm_head": 1, "embed": "cpu"}
    assert prompt_options(fresh_vlm.model)["logits_to_keep"] == slice(-1, None)


def test_positions_and_a_number_give_the_same_bits(vlm: Vlm, samples: list[Sample]) -> None:
    batch = encode(vlm.processor, samples, vlm.anatomy.image_positions)
    with torch.inference_mode():
        from_positions = vlm.model(**vlm.to_device(batch.inputs), **prompt_options(vlm.model)).logits
        from_number = vlm.model(**vlm.to_device(batch.inputs), use_cache=False, logits_to_keep=1).logits
    assert torch.equal(from_positions, from_number)


def test_a_model_without_positions_of_logits_is_measured_the_same(fresh_vlm: Vlm) -> None:
    before, inner = tiny_profile(fresh_vlm), fresh_vlm.model.forward

    def forward(input_ids: Any, attention_mask: Any, pixel_values: Any) -> Any:
        return inner(input_ids=input_ids, attention_mask=attention_mask, pixel_values=pixel_values)

    fresh_vlm.model.forward = forward
    assert largest_difference(tiny_profile(fresh_vlm), before) < 1e-5


def set_option(name: str, value: Any) -> Callable[[Vlm], None]:
    return lambda vlm: setattr(vlm.processor, name, value)


def larger_images(vlm: Vlm) -> None:
    images = vlm.processor.image_processor
    images.size = images.crop_size = {"height": 48, "width": 48}


def reject_masks(vlm: Vlm) -> None:
    inner = vlm.model.forward
    vlm.model.forward = lambda input_ids, pixel_values: inner(input_ids=input_ids, pixel_values=pixel_values)


def raise_key_error(_: Any, __: Any) -> None:
    raise KeyError("slot")


def fail_in_a_layer(vlm: Vlm) -> None:
    vlm.anatomy.layers[2].mlp.register_forward_pre_hook(raise_key_error)


def select_full_features(vlm: Vlm) -> None:
    vlm.model.config.vision_feature_select_strategy = "full"


def cast_part_to_float64(part: str) -> Callable[[Vlm], None]:
    return lambda vlm: vlm.model.get_submodule(part).to(torch.float64)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            set_option("num_additional_image_tokens", 0),
            r"tiny-llava: the processor writes 15 image tokens for an image and the model makes 16 features of it: "
            r"set the processor's patch_size, .*num_additional_image_tokens.*; the model's forward pass of sample "
            r"tiny-0, tiny-1 raised ValueError: Image features and .* do not match.*\(in model, modeling_llava.py",
        ),
        (
            select_full_features,
            "writes 16 image .* makes 17 features of it: the processor's vision_feature_select_strategy is 'default'",
        ),
        (
            set_option("patch_size", 16),
            "writes 4 image .* makes 16 features of it: the processor's patch_size is 16 and .* is 8",
        ),
        (larger_images, "makes images of 48 x 48 pixels and the vision tower is configured for 32 x 32: set size"),
        (reject_masks, "expect different inputs.* raised TypeError: .* argument 'attention_mask'"),
        (
            cast_part_to_float64("model.vision_tower"),
            r"compute in different dtypes: convert the whole model .* raised RuntimeError",
        ),
        (
            cast_part_to_float64("model.language_model.layers.2"),
            r"compute in different dtypes: convert the whole model",
        ),
        (
            fail_in_a_layer,
            r"tiny-llava: the model's forward pass of sample tiny-0, tiny-1 raised KeyError: 'slot' \(in "
            r"model.language_model.layers.2.mlp, test_forward_pass.py, line \d+\); .* fix the model's code",
        ),
    ],
    ids=["additional", "strategy", "patch", "size", "argument", "tower type", "layer type", "other"],
)
def test_an_error_of_the_model_is_one_sentence_with_its_remedy(
    fresh_vlm: Vlm, damage: Callable[[Vlm], None], message: str
) -> None:
    damage(fresh_vlm)
    with pytest.raises(ForwardError, match=message) as raised:
        tiny_profile(fresh_vlm)
    assert "\n" not in str(raised.value)
    assert raised.value.__cause__ is not None


def test_an_error_of_the_harness_is_not_wrapped(
    vlm: Vlm, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.probe.similarity.upcast", None)
    batch = encode(vlm.processor, samples, vlm.anatomy.image_positions)
    with pytest.raises(TypeError, match="NoneType"):
        observe(vlm, batch, samples)


def test_autocast_is_refused_around_the_model_and_inside_of_it(fresh_vlm: Vlm) -> None:
    autocast = torch.autocast("cpu", dtype=torch.bfloat16)
    with autocast, pytest.raises(ForwardError, match=r"under torch.autocast, .* to bfloat16: leave torch.autocast"):
        tiny_profile(fresh_vlm)
    fresh_vlm.model.forward = autocast(fresh_vlm.model.forward)
    with pytest.raises(ForwardError, match=r"accelerator.unwrap_model\(model, keep_fp32_wrapper=False\)"):
        tiny_profile(fresh_vlm)


def add_token_without_embedding(vlm: Vlm) -> int:
    """Give the tokenizer one token more than the embedding has rows."""
    vlm.processor.tokenizer.add_tokens(["zebra"])
    return len(vlm.processor.tokenizer) - 1


def test_an_id_beyond_the_embedding_is_named_with_its_token(fresh_vlm: Vlm, samples: list[Sample]) -> None:
    new_id = add_token_without_embedding(fresh_vlm)
    with_zebra = [replace(sample, instruction="describe the zebra please") for sample in samples]
    batch = encode(fresh_vlm.processor, with_zebra, fresh_vlm.anatomy.image_positions)
    with pytest.raises(
        TokenIdError,
        match=rf"prompt of sample tiny-0 contains the token 'zebra' with id {new_id}, and the model's embedding "
        rf"ends at id {new_id - 1}: ",
    ):
        observe(fresh_vlm, batch, with_zebra)
    assert not fresh_vlm.model.get_input_embeddings()._forward_pre_hooks


def test_an_id_that_the_model_replaces_is_accepted(fresh_vlm: Vlm, samples: list[Sample]) -> None:
    """Some models replace ids of image tokens outside their vocabulary before the embedding look-up."""
    new_id = add_token_without_embedding(fresh_vlm)
    with_zebra = [replace(sample, instruction="describe the zebra please") for sample in samples]
    batch = encode(fresh_vlm.processor, with_zebra, fresh_vlm.anatomy.image_positions)
    fresh_vlm.model.register_forward_pre_hook(
        lambda _, args, kwargs: (
            args,
            kwargs | {"input_ids": kwargs["input_ids"].masked_fill_(kwargs["input_ids"] == new_id, 5)},
        ),
        with_kwargs=True,
    )
    assert observe(fresh_vlm, batch, with_zebra).similarity.shape[0] == len(samples)


def fail_at_white_images(vlm: Vlm) -> Any:
    def stop(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        if bool((kwargs["pixel_values"].flatten(1).amin(1) > 1.0).any()):
            raise ValueError("too bright")

    return vlm.model.register_forward_pre_hook(stop, with_kwargs=True)


def test_a_sample_that_fails_its_batch_excludes_no_other_sample(
    fresh_vlm: Vlm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def draw(n: int, *_: object) -> list[Sample]:
        white: Any = lambda: Image.new("RGB", (SIDE, SIDE), "white")  # noqa: E731
        return [replace(sample, load_image=white) if sample.id == FAILING else sample for sample in tiny_samples(n)]

    monkeypatch.setitem(DATASETS, "tiny", Dataset("tiny", "tiny", draw))
    complete = tiny_profile(fresh_vlm, samples=12, batch_size=4)
    hook = fail_at_white_images(fresh_vlm)
    with pytest.raises(SampleError) as raised:
        tiny_profile(fresh_vlm, samples=12, batch_size=4, cache=tmp_path)
    message = str(raised.value)
    assert f"1 of 12 samples cannot be measured: sample {FAILING}: " in message
    assert f"forward pass of sample {FAILING} raised ValueError: too bright" in message
    assert "the readings of 11 others are cached" in message
    hook.remove()
    assert complete.sample_ids == tiny_profile(fresh_vlm, samples=12, batch_size=4, cache=tmp_path).sample_ids
