"""Every self-check fails on its fault, names the location, and passes on a correct model."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import harness.probe.attention
import harness.probe.last_token
from harness.data.sample import Sample
from harness.models.anatomy import Anatomy
from harness.models.prompts.prompt import encode
from harness.models.vlm import Vlm
from harness.probe.attention import AttentionError, LastRow, last_row
from harness.probe.attention_call import AttentionCall
from harness.probe.attention_check import check_layers_read
from harness.probe.last_token import LinearMap
from harness.probe.lens_task import LensTask
from harness.probe.self_checks import (
    SelfCheckError,
    check_image_positions,
    check_last_state,
    check_same_hits,
    collect_placeholder_masks,
    find_non_finite,
    relative_difference,
)
from harness.tests.support.tiny import dense_lens_task, observe, tiny_vlm

NAME = "LlavaForConditionalGeneration"
NUMBER = r"-?\d+(\.\d+)?(e[+-]\d+)?"


def with_parts(vlm: Vlm, **parts: Any) -> Vlm:
    return dataclasses.replace(vlm, anatomy=dataclasses.replace(vlm.anatomy, **parts))


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "biased"])
@pytest.mark.parametrize(
    ("attention", "dtype"),
    [("sdpa", torch.float32), ("eager", torch.float32), ("sdpa", torch.float64), ("sdpa", torch.bfloat16)],
)
def test_a_correct_model_passes(samples: list[Sample], attention: str, dtype: torch.dtype, bias: bool) -> None:
    vlm = tiny_vlm(attention=attention, dtype=dtype, bias=bias)
    readings = observe(vlm, samples, dense_lens_task(len(samples)))
    batch = encode(vlm.processor, samples, vlm.anatomy.image_positions)
    check_image_positions(vlm.model, vlm.name, batch.groups.image, vlm.to_device(batch.inputs))
    assert readings.hits is not None
    check_same_hits(vlm.name, readings.hits, readings.hits.copy(), [sample.id for sample in samples], range(5))


def test_the_norm_of_a_layer_as_final_norm_is_detected(vlm: Vlm, samples: list[Sample]) -> None:
    """The last layer's norm is also called once, so the number of residual points is as expected."""
    wrong = with_parts(vlm, final_norm=vlm.anatomy.layers[-1].post_attention_layernorm)
    with pytest.raises(SelfCheckError, match=rf"{NAME}: .*top logit {NUMBER}, but the model's own is {NUMBER} \(rel"):
        observe(wrong, samples)


@pytest.mark.parametrize("part", ["final_norm", "unembedding"])
def test_a_norm_or_head_that_is_not_called_is_detected(vlm: Vlm, samples: list[Sample], part: str) -> None:
    copies = {"final_norm": nn.RMSNorm(vlm.anatomy.width), "unembedding": nn.Linear(vlm.anatomy.width, 400)}
    points = {"final_norm": vlm.anatomy.depth, "unembedding": vlm.anatomy.depth + 1}
    title = part.replace("_", " ")
    with pytest.raises(SelfCheckError, match=f"{NAME}: {points[part]} residual .* expected 5; its {title} was not"):
        observe(with_parts(vlm, **{part: copies[part]}), samples)


def test_a_projection_of_a_layer_as_unembedding_is_detected(vlm: Vlm, samples: list[Sample]) -> None:
    wrong = with_parts(vlm, unembedding=vlm.anatomy.layers[-1].mlp.gate_proj)
    with pytest.raises(SelfCheckError, match=f"{NAME}: .*top logit {NUMBER}, but the model's own is {NUMBER}"):
        observe(wrong, samples)


def test_a_final_norm_without_its_weight_is_detected(fresh_vlm: Vlm) -> None:
    """The check calls the norm of the anatomy again after the pass."""
    anatomy: Anatomy = fresh_vlm.anatomy
    state = torch.randn(2, 1, anatomy.width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model_logits = anatomy.unembedding(anatomy.final_norm(state))[:, -1]
        check_last_state(anatomy, model_logits, model_logits)
        anatomy.final_norm.weight.fill_(1.0)
        logits = anatomy.unembedding(anatomy.final_norm(state))[:, -1]
        with pytest.raises(SelfCheckError, match="the final norm or the unembedding is not the one the model uses"):
            check_last_state(anatomy, logits, model_logits)


def test_a_layer_listed_twice_is_detected(vlm: Vlm, samples: list[Sample]) -> None:
    """A list with one layer twice and another omitted has the correct length."""
    layers = list(vlm.anatomy.layers)
    layers[2] = layers[1]
    with pytest.raises(SelfCheckError, match=NAME):
        observe(with_parts(vlm, layers=tuple(layers)), samples)


def test_a_projection_of_another_layer_is_detected(
    monkeypatch: pytest.MonkeyPatch, vlm: Vlm, samples: list[Sample]
) -> None:
    other = vlm.anatomy.layers[0].self_attn.o_proj
    monkeypatch.setattr(harness.probe.attention, "output_projection", lambda _: other)
    expected = rf"{NAME}: attention was read in layers \[1\], but not in \[2, 3, 4\]"
    with pytest.raises(SelfCheckError, match=expected):
        observe(vlm, samples)


@pytest.mark.parametrize("fault", ["no mask", "no scaling", "head order"])
def test_wrong_attention_parts_are_detected(
    monkeypatch: pytest.MonkeyPatch, vlm: Vlm, samples: list[Sample], fault: str
) -> None:
    def wrong(call: AttentionCall) -> LastRow:
        if fault == "no mask":
            return last_row(dataclasses.replace(call, mask=None))
        if fault == "no scaling":
            return last_row(dataclasses.replace(call, scaling=1.0))
        return last_row(dataclasses.replace(call, key=call.key.flip(1), value=call.value.flip(1)))

    monkeypatch.setattr(harness.probe.attention, "last_row", wrong)
    with pytest.raises(SelfCheckError, match=f"{NAME}, layer 1: the attention parts"):
        observe(vlm, samples)


def test_an_omitted_bias_is_detected(monkeypatch: pytest.MonkeyPatch, vlm: Vlm, samples: list[Sample]) -> None:
    monkeypatch.setattr(harness.probe.last_token, "linear_map", lambda module, _: LinearMap(module.weight, None))
    with pytest.raises(SelfCheckError, match=f"{NAME}, layer 1: the attention parts"):
        observe(vlm, samples)


def test_a_layer_that_bypasses_the_attention_interface_is_detected(fresh_vlm: Vlm, samples: list[Sample]) -> None:
    """The layer has its own configuration, whose attention implementation is not replaced."""
    attention = fresh_vlm.anatomy.layers[2].self_attn
    attention.config = type(attention.config)(**attention.config.to_dict())
    attention.config._attn_implementation = "sdpa"
    with pytest.raises(SelfCheckError, match=rf"{NAME}: attention was read in layers \[1, 2, 4\], but not in \[3\]"):
        observe(fresh_vlm, samples)


def test_image_positions_that_differ_in_number_from_the_image_features_are_refused(
    fresh_vlm: Vlm, samples: list[Sample]
) -> None:
    batch = encode(fresh_vlm.processor, samples, fresh_vlm.anatomy.image_positions)
    spoiled = batch.groups.image.clone()
    spoiled[0, int(spoiled[0].int().argmax())] = False
    inputs = fresh_vlm.to_device(batch.inputs)
    with pytest.raises(SelfCheckError, match=f"{NAME}: .* have 63 image positions, but the model makes 64 image feat"):
        check_image_positions(fresh_vlm.model, fresh_vlm.anatomy.name, spoiled, inputs)


def test_image_positions_are_compared_with_the_placeholder_masks(fresh_vlm: Vlm, samples: list[Sample]) -> None:
    batch = encode(fresh_vlm.processor, samples, fresh_vlm.anatomy.image_positions)
    inputs = fresh_vlm.to_device(batch.inputs)
    with collect_placeholder_masks(fresh_vlm.model) as masks:
        fresh_vlm.model(**inputs, use_cache=False, logits_to_keep=1)
    fresh_vlm.model(**inputs, use_cache=False, logits_to_keep=1)
    assert len(masks) == 1
    check_image_positions(fresh_vlm.model, NAME, batch.groups.image, inputs, masks)
    shifted = batch.groups.image.roll(1, dims=1)
    with pytest.raises(SelfCheckError, match=r"at 64 positions, .* have 64 image positions, and they are not the same"):
        check_image_positions(fresh_vlm.model, NAME, shifted, inputs, masks)


@pytest.mark.parametrize("lens", [None, "pruned", "dense"])
def test_a_nan_names_its_sample_and_residual_point(fresh_vlm: Vlm, samples: list[Sample], lens: str | None) -> None:
    def spoil(_: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        states = args[0].clone()
        states[2, -1, 0] = torch.nan
        return (states, *args[1:])

    # Registered before the observation's hook, so that the observation reads the changed states.
    fresh_vlm.anatomy.layers[1].register_forward_pre_hook(spoil)
    task = None if lens is None else dense_lens_task(len(samples))
    if lens == "pruned":
        task = LensTask(task.references, ()) if task else None
    expected = f"{NAME}: similarity of sample tiny-2 is nan at residual point 1; .*another dtype"
    with pytest.raises(SelfCheckError, match=expected):
        observe(fresh_vlm, samples, task)


def test_the_message_names_the_sample_with_infinite_logits(fresh_vlm: Vlm, samples: list[Sample]) -> None:
    with torch.no_grad():
        fresh_vlm.anatomy.unembedding.weight[7, 0] = torch.inf
    with pytest.raises(SelfCheckError, match=f"{NAME}: logits of sample tiny-0 is -?(inf|nan)"):
        observe(fresh_vlm, samples, dense_lens_task(len(samples)))


def test_each_sample_with_a_non_finite_reading_has_a_message_with_its_layer_or_residual_point() -> None:
    values = np.zeros((2, 3, 4))
    values[1, 2, 0] = np.inf
    (fault,) = find_non_finite("m", {"norm_shares": values}, "ab").items()
    assert fault[0] == 1
    assert fault[1].startswith("m: norm_shares of sample b is inf at layer 3; the hidden states overflow or hold NaN")
    assert (
        "means of sample b is inf at residual point 2;"
        in find_non_finite("m", {"hits": np.zeros(2), "means": values}, "ab")[1]
    )
    both = find_non_finite("m", {"post_norm": np.full((2, 5), np.nan)}, "ab")
    assert list(both) == [0, 1]
    assert both[0].startswith("m: post_norm of sample a is nan; ")
    assert find_non_finite("m", {"means": np.zeros((2, 3, 4)), "hits": np.zeros(2, dtype=int)}, "ab") == {}


def test_different_hits_of_the_lenses_are_reported_with_sample_and_point() -> None:
    dense = np.zeros((2, 3, 2, 2), dtype=np.int64)
    pruned = dense.copy()
    pruned[1, 2, 0, 1] = 4
    with pytest.raises(
        SelfCheckError, match=r"m: at residual point 7 of sample b the dense lens finds 0 words and .* 4"
    ):
        check_same_hits("m", dense, pruned, "ab", (0, 4, 7))


def test_attention_that_was_read_in_no_layer_is_refused(vlm: Vlm) -> None:
    with pytest.raises(AttentionError, match=f"{NAME} does not compute attention through .* AttentionInterface"):
        check_layers_read(vlm.anatomy, [])


def test_relative_difference_is_relative_to_the_largest_reference_value() -> None:
    assert relative_difference(torch.tensor([1.0, 8.0]), torch.tensor([2.0, -10.0])) == pytest.approx(1.8)
    assert relative_difference(torch.zeros(2), torch.zeros(2)) == 0.0
