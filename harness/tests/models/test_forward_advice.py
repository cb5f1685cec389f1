"""Errors for models and processors that violate a requirement of a measurement."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from harness.models.anatomy import AnatomyError, find_anatomy
from harness.models.forward_errors import ForwardError
from harness.models.prompts.chat import PromptError
from harness.models.vlm import Vlm, VlmError
from harness.probe.self_checks import SelfCheckError
from harness.tests.support.tiny import have_same_numbers, tiny_profile

pytestmark = pytest.mark.usefixtures("tiny_data")


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (RuntimeError("CUDA error: no kernel image is available"), "for torch, the build for this GPU"),
        (ModuleNotFoundError("No module named 'causal_conv1d'"), "install the package that the error names"),
        (ModuleNotFoundError("No module named 'flash_attn'"), "load the model with attn_implementation='sdpa'"),
        (AttributeError("'Tower' object has no attribute 'patch_size'"), "use the image processor of this checkpoint"),
        (ValueError("too many values to unpack (expected 4)"), "use the image processor of this checkpoint"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `x`"), "measure with --phase-batch-size 1"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "CUDA_LAUNCH_BLOCKING=1"),
        (
            RuntimeError("unsupported\nDeveloper debug context: torch._dynamo, meta"),
            "cannot trace a pass with hook",
        ),
        (RuntimeError("Tensor on device cpu is not on the expected device meta!"), "and have no values: load"),
    ],
    ids=["kernel", "module", "flash", "sizes", "dimensions", "memory", "access", "compile", "meta"],
)
def test_an_error_has_the_remedy_of_its_kind(fresh_vlm: Vlm, error: Exception, remedy: str) -> None:
    def raise_error(*_: Any) -> None:
        raise error

    fresh_vlm.anatomy.layers[1].register_forward_hook(raise_error)
    with pytest.raises(ForwardError, match=remedy) as raised:
        tiny_profile(fresh_vlm)
    assert "the harness changes no state" not in str(raised.value)


def test_a_pass_outside_of_inference_mode_is_measured_when_frozen(fresh_vlm: Vlm) -> None:
    inner, before = fresh_vlm.model.forward, tiny_profile(fresh_vlm)

    def forward(input_ids: Any, attention_mask: Any, pixel_values: Any, **options: Any) -> Any:
        with torch.inference_mode(mode=False):
            return inner(input_ids=input_ids, attention_mask=attention_mask, pixel_values=pixel_values, **options)

    fresh_vlm.model.forward = forward
    fresh_vlm.model.requires_grad_(True)
    with pytest.raises(ForwardError, match=r"freeze it with model.requires_grad_\(False\)"):
        tiny_profile(fresh_vlm)
    fresh_vlm.model.requires_grad_(False)
    assert have_same_numbers(tiny_profile(fresh_vlm), before)


@pytest.mark.parametrize(
    ("change", "message"),
    [(lambda states: (states, None), "are a tuple instead"), (lambda states: states[0], r"shape \(41, 32\) instead")],
    ids=["tuple", "row"],
)
def test_a_hook_that_gives_no_states_is_named_by_its_point(fresh_vlm: Vlm, change: Any, message: str) -> None:
    fresh_vlm.anatomy.layers[1].register_forward_hook(lambda _, __, output: change(output))
    with pytest.raises(ForwardError, match=f"states at residual point 2 are a .*{message}|{message}"):
        tiny_profile(fresh_vlm)


def test_autocast_around_the_attention_alone_is_refused(fresh_vlm: Vlm) -> None:
    attention = fresh_vlm.anatomy.layers[1].self_attn
    attention.forward = torch.autocast("cpu", dtype=torch.bfloat16)(attention.forward)
    with pytest.raises(ForwardError, match=r"under torch.autocast"):
        tiny_profile(fresh_vlm)


def apply_dropout(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
    return nn.functional.dropout(output, 0.1, training=True)


def add_noise(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
    return output + 0.01 * torch.randn_like(output)


def reverse_logits(_: Any, __: Any, output: Any) -> Any:
    output.logits = output.logits.flip(-1)
    return output


def scale_and_bar_logits(_: Any, __: Any, output: Any) -> Any:
    best = output.logits.argmax(-1, keepdim=True)
    output.logits = output.logits.mul(0.1).tanh().scatter(-1, best, torch.finfo(torch.float32).min)
    return output


def test_a_head_of_zeros_is_refused(fresh_vlm: Vlm) -> None:
    fresh_vlm.model.lm_head.weight.zero_()
    with pytest.raises(SelfCheckError, match="all logits of the model are 0, so no entry is the best"):
        tiny_profile(fresh_vlm)


def test_a_hook_that_changes_logits_behind_the_head_is_refused(fresh_vlm: Vlm) -> None:
    fresh_vlm.model.register_forward_hook(reverse_logits)
    with pytest.raises(SelfCheckError, match=r"in 2 of 2 samples: remove the hook or wrapper that changes logits"):
        tiny_profile(fresh_vlm)


def test_a_model_may_scale_and_mask_its_logits(fresh_vlm: Vlm) -> None:
    fresh_vlm.model.register_forward_hook(scale_and_bar_logits)
    assert tiny_profile(fresh_vlm)["exit_agreement"][:, -1].all()


@pytest.mark.parametrize("change", [apply_dropout, add_noise])
def test_a_model_that_draws_random_numbers_is_refused(fresh_vlm: Vlm, change: Any) -> None:
    fresh_vlm.anatomy.layers[1].mlp.register_forward_hook(change)
    with pytest.raises(
        SelfCheckError,
        match=r"two passes over the same inputs differ .* at residual point 2 of sample tiny-0\), so its",
    ):
        tiny_profile(fresh_vlm)


def test_a_model_that_changes_only_after_its_first_pass_is_measured(fresh_vlm: Vlm) -> None:
    passes = []

    def change_after_first_pass(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
        passes.append(1)
        return output * (1.1 if len(passes) == 1 else 1.0)

    before = tiny_profile(fresh_vlm)
    fresh_vlm.anatomy.layers[3].mlp.register_forward_hook(change_after_first_pass)
    after = tiny_profile(fresh_vlm)
    np.testing.assert_array_equal(after.arrays["inter"], before.arrays["inter"])


class ChangedProcessor:
    """A processor that changes its inputs."""

    def __init__(self, inner: Any, change: Callable[[dict[str, Any]], Any]) -> None:
        self.inner, self.change = inner, change

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __call__(self, *args: Any, **options: Any) -> Any:
        # The measurement replaces the tokenizer in a copy.
        self.inner.tokenizer = self.__dict__.get("tokenizer", self.inner.tokenizer)
        return self.change(dict(self.inner(*args, **options)))


def with_changed_inputs(vlm: Vlm, **changes: Any) -> Vlm:
    """Return the model with a processor that applies a function to each named input."""
    change = lambda inputs: inputs | {name: changes[name](inputs[name]) for name in changes}  # noqa: E731
    return replace(vlm, processor=ChangedProcessor(vlm.processor, change))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"input_ids": torch.Tensor.tolist},
            r"returns input_ids as list, but 2 prompts need a tensor of shape \(2, to",
        ),
        (
            {"attention_mask": torch.Tensor.numpy},
            r"returns attention_mask as ndarray of shape \(2, 41\), but 2 prompts",
        ),
        ({"input_ids": lambda ids: ids[0]}, r"returns input_ids as Tensor of shape \(41,\), but 2 prompts"),
        ({"input_ids": lambda ids: ids[:1]}, r"returns input_ids as Tensor of shape \(1, 41\), but 2 prompts"),
        ({"attention_mask": lambda _: None}, r"returns no attention_mask"),
    ],
    ids=["list", "array", "one prompt", "one row", "none"],
)
def test_inputs_that_are_no_rows_of_the_prompts_are_refused(fresh_vlm: Vlm, changes: Any, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        tiny_profile(with_changed_inputs(fresh_vlm, **changes))


def rename_pixels(inputs: dict[str, Any]) -> dict[str, Any]:
    return {{"pixel_values": "images"}.get(name, name): value for name, value in inputs.items()}


@pytest.mark.parametrize(
    "change", [lambda inputs: inputs | {"pixel_values": None}, rename_pixels], ids=["none", "renamed"]
)
def test_a_model_that_ignores_the_image_is_refused(fresh_vlm: Vlm, change: Any) -> None:
    with pytest.raises(SelfCheckError, match=r"do not depend on the image: the processor returns input_ids, attention"):
        tiny_profile(replace(fresh_vlm, processor=ChangedProcessor(fresh_vlm.processor, change)))


def test_a_model_that_reports_no_positions_is_measured_if_it_uses_the_image(
    fresh_vlm: Vlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tiny_profile(fresh_vlm)
    monkeypatch.setattr(
        "harness.measurement.drawn_samples.collect_placeholder_masks", lambda _: contextlib.nullcontext([])
    )
    assert have_same_numbers(tiny_profile(fresh_vlm), before)


class FlatProcessor(ChangedProcessor):
    """A processor with one set of arguments for all parts, like processors of a checkpoint's own code."""

    def __call__(  # type: ignore[override]
        self, images: Any, text: Any, padding: Any = False, padding_side: str = "left", return_tensors: Any = None
    ) -> Any:
        return super().__call__(
            images=images, text=text, padding=padding, padding_side=padding_side, return_tensors=return_tensors
        )


def test_a_processor_with_one_set_of_arguments_is_called_with_it(fresh_vlm: Vlm) -> None:
    before = tiny_profile(fresh_vlm)
    assert have_same_numbers(
        tiny_profile(replace(fresh_vlm, processor=FlatProcessor(fresh_vlm.processor, dict))), before
    )


def test_a_missing_package_is_not_reported_as_a_template_problem(fresh_vlm: Vlm) -> None:
    def require_torchvision(_: Any) -> Any:
        raise ImportError("the image processor requires torchvision")

    with pytest.raises(PromptError, match=r"requires torchvision\); install the package that it names"):
        tiny_profile(replace(fresh_vlm, processor=ChangedProcessor(fresh_vlm.processor, require_torchvision)))


def test_an_image_processor_of_another_kind_is_named(fresh_vlm: Vlm) -> None:
    def reject_dimensions(_: Any) -> Any:
        raise ValueError("Unsupported number of image dimensions: 1")

    with pytest.raises(PromptError, match=r"dimensions: 1\); its image processor belongs to another model type: use"):
        tiny_profile(replace(fresh_vlm, processor=ChangedProcessor(fresh_vlm.processor, reject_dimensions)))


def test_images_of_another_shape_are_not_reported_as_a_size_problem(fresh_vlm: Vlm) -> None:
    def make_tiles(inputs: Any) -> Any:
        pixels = inputs["pixel_values"].repeat(1, 1, 2, 2)
        return {**inputs, "pixel_values": pixels[:, None]}

    with pytest.raises(
        ForwardError, match="returns images in another form than the vision tower expects: use the image"
    ):
        tiny_profile(replace(fresh_vlm, processor=ChangedProcessor(fresh_vlm.processor, make_tiles)))


def test_a_sparse_weight_is_named(fresh_vlm: Vlm) -> None:
    head = fresh_vlm.model.lm_head
    head.weight = nn.Parameter(head.weight.to_sparse(), requires_grad=False)
    with pytest.raises(ForwardError, match=r"lm_head.weight is stored sparse, which .*: make it dense \(module.weight"):
        tiny_profile(fresh_vlm)


def test_parts_of_different_models_are_refused(fresh_vlm: Vlm) -> None:
    for processor in (fresh_vlm.processor.tokenizer, fresh_vlm.processor.image_processor, None):
        with pytest.raises(VlmError, match=r"is no processor of images and prompts: load one with AutoProcessor"):
            replace(fresh_vlm, processor=processor)
    with pytest.raises(VlmError, match=r"the anatomy belongs to another model than the Llava.*find_anatomy\(model\)"):
        replace(fresh_vlm, model=copy.deepcopy(fresh_vlm.model))


def test_a_wrapper_is_not_measured_and_its_module_is(fresh_vlm: Vlm) -> None:
    with pytest.raises(AnatomyError, match=r"DataParallel is a wrapper that passes calls .* its attribute `module`"):
        find_anatomy(nn.DataParallel(fresh_vlm.model))


def test_an_outdated_anatomy_is_reported(fresh_vlm: Vlm) -> None:
    fresh_vlm.model.resize_token_embeddings(len(fresh_vlm.processor.tokenizer) + 8, mean_resizing=False)
    with pytest.raises(
        SelfCheckError, match=r"its unembedding was not called; call harness.find_anatomy\(model\) after"
    ):
        tiny_profile(fresh_vlm)


def test_a_layer_that_is_twice_in_the_list_is_named_as_a_cause(fresh_vlm: Vlm) -> None:
    fresh_vlm.model.model.language_model.layers[2] = fresh_vlm.model.model.language_model.layers[1]
    with pytest.raises(
        SelfCheckError, match=r"7 residual points were observed, expected 5; .* no module twice in the list"
    ):
        tiny_profile(replace(fresh_vlm, anatomy=find_anatomy(fresh_vlm.model)))
