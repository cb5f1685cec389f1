"""Wrapped heads and output projections give the same readings as the equivalent plain layer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from harness.judgement.weights import weight_change, weight_parts
from harness.models.anatomy import AnatomyError, find_anatomy, output_projection
from harness.models.linear import is_plain, output_width
from harness.models.prompts.prompt import encode
from harness.models.vlm import Vlm
from harness.probe.last_token import linear_map
from harness.probe.self_checks import SelfCheckError
from harness.profile.profile import Profile
from harness.tests.support import literal
from harness.tests.support.saved_weights import hash_weights
from harness.tests.support.tiny import dense_lens_task, have_same_numbers, observe, tiny_profile, tiny_samples, tiny_vlm

pytestmark = pytest.mark.usefixtures("tiny_data")


class Adapted(nn.Module):
    """A layer with a low-rank change, without attributes for weight or width."""

    def __init__(self, base: nn.Linear, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.base = base
        self.down = nn.Parameter(torch.randn(3, base.in_features, generator=generator), requires_grad=False)
        self.up = nn.Parameter(torch.randn(base.out_features, 3, generator=generator), requires_grad=False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.base(states) + states @ self.down.to(states.dtype).T @ self.up.to(states.dtype).T

    def merge(self) -> nn.Linear:
        plain = copy.deepcopy(self.base)
        plain.weight += self.up @ self.down
        return plain


class Doubling(nn.Module):
    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        return 2.0 * numbers


class Tanh(nn.Module):
    """A nonlinear wrapper of a linear layer."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.base(states))


def add_hook(layer: nn.Linear) -> nn.Module:
    layer.register_forward_hook(lambda _, __, output: output * 2.0)
    return layer


def add_pre_hook(layer: nn.Linear) -> nn.Module:
    layer.register_forward_pre_hook(lambda _, args: (args[0] * 2.0,))
    return layer


def replace_forward(layer: nn.Linear) -> nn.Module:
    old = layer.forward
    layer.forward = lambda states: old(states) * 2.0
    return layer


def parametrise(layer: nn.Linear) -> nn.Module:
    parametrize.register_parametrization(layer, "weight", Doubling())
    return layer


def double(layer: nn.Linear) -> nn.Linear:
    layer.weight *= 2.0
    if layer.bias is not None:
        layer.bias *= 2.0
    return layer


def double_weight(layer: nn.Linear) -> nn.Linear:
    layer.weight *= 2.0
    return layer


def adapt(layer: nn.Linear) -> nn.Module:
    return Adapted(layer, 1)


def merge(layer: nn.Linear) -> nn.Linear:
    return Adapted(layer, 1).merge()


#: Changes of a layer that keep its weight, each with the equivalent plain layer.
CHANGES: dict[str, tuple[Callable[[nn.Linear], nn.Module], Callable[[nn.Linear], nn.Linear]]] = {
    "adapter": (adapt, merge),
    "hook": (add_hook, double),
    "hook before": (add_pre_hook, double_weight),
    "replaced forward": (replace_forward, double),
    "parametrised": (parametrise, double_weight),
}


def with_projections(change: Callable[[nn.Linear], nn.Module], **options: Any) -> Vlm:
    vlm = tiny_vlm(**options)
    for layer in vlm.anatomy.layers:
        layer.self_attn.o_proj = change(layer.self_attn.o_proj)
    return vlm


def with_head(change: Callable[[nn.Linear], nn.Module], **options: Any) -> Vlm:
    vlm = tiny_vlm(**options)
    vlm.model.lm_head = change(vlm.model.lm_head)
    return Vlm(vlm.name, vlm.model, vlm.processor, find_anatomy(vlm.model))


def assert_close(first: Profile, second: Profile) -> None:
    assert first.arrays.keys() == second.arrays.keys()
    for name, values in first.arrays.items():
        np.testing.assert_allclose(values, second.arrays[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("kind", CHANGES)
def test_a_wrapped_head_is_read_as_the_equivalent_plain_head(kind: str) -> None:
    change, plain = CHANGES[kind]
    profile = tiny_profile(with_head(change))
    assert profile["exit_agreement"][:, -1].all()
    assert profile["recall_5"].max() > 0
    assert_close(profile, tiny_profile(with_head(plain)))


def test_a_hook_that_adds_to_the_logits_is_included() -> None:
    shift = torch.zeros(tiny_vlm().anatomy.vocabulary_size)
    shift[::3] = 50.0

    def shift_by_hook(layer: nn.Linear) -> nn.Module:
        layer.register_forward_hook(lambda _, __, output: output + shift)
        return layer

    def shift_by_bias(layer: nn.Linear) -> nn.Linear:
        layer.bias = nn.Parameter(shift, requires_grad=False)
        return layer

    profile = tiny_profile(with_head(shift_by_hook))
    assert profile["exit_agreement"][:, -1].all()
    assert_close(profile, tiny_profile(with_head(shift_by_bias)))
    assert (profile["recall_5"] != tiny_profile(tiny_vlm())["recall_5"]).any()


def test_a_head_in_16_bits_that_is_no_plain_layer_agrees_with_the_model(samples: Any) -> None:
    vlm = with_head(adapt, dtype=torch.bfloat16)
    agreement = observe(vlm, samples, dense_lens_task(len(samples))).exit_agreement
    assert agreement is not None
    assert agreement[:, -1].all()


@pytest.mark.parametrize("kind", CHANGES)
def test_norms_use_the_wrapped_output_projection(kind: str) -> None:
    change, plain = CHANGES[kind]
    assert_close(tiny_profile(with_projections(change)), tiny_profile(with_projections(plain)))


def test_an_output_projection_that_is_not_linear_is_refused_with_its_class_and_the_way_out() -> None:
    expected = r"layer 1: .* \(relative difference .*\); Tanh is not linear enough: dequantise .* or merge the adapter"
    with pytest.raises(SelfCheckError, match=expected):
        tiny_profile(with_projections(Tanh))


def test_a_head_of_another_input_width_is_refused() -> None:
    with pytest.raises(AnatomyError, match="no unembedding of width 32"):
        with_head(lambda _: Adapted(nn.Linear(16, 40), 0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_norms_of_a_16_bit_model_are_products_in_float32(samples: Any, dtype: torch.dtype) -> None:
    """Compare with float64. The product in 16 bits has an error of 1e-3."""
    vlm = tiny_vlm(dtype=dtype)
    projection = vlm.anatomy.layers[1].self_attn.o_proj
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(2, 7, 1, generator=generator) * torch.randn(2, 7, 32, generator=generator)
    exact = np.linalg.norm(values.double().numpy() @ literal.to_float64(projection.weight).T, axis=-1)
    with torch.inference_mode():
        norms = linear_map(projection, values)(values).norm(dim=-1).numpy()
        rounded = (projection(values.to(dtype)).float() - projection.bias.float()).norm(dim=-1).numpy()
    np.testing.assert_allclose(norms, exact, rtol=2e-6)
    assert np.abs(rounded / exact - 1).max() > 1e-4
    batch = encode(vlm.processor, samples, vlm.anatomy.image_positions)
    readings = observe(vlm, samples, dense_lens_task(len(samples)))
    assert readings.norm_rows is not None
    assert readings.norm_rows.shape[:2] == (len(samples), vlm.anatomy.depth)
    assert batch.groups.real.shape[1] == readings.norm_rows.shape[2]


def test_plain_layers_are_distinguished_from_others() -> None:
    layer = nn.Linear(4, 7)
    assert is_plain(layer)
    assert not any(
        is_plain(second)
        for second in (*(change(nn.Linear(4, 7)) for change in (add_hook, add_pre_hook, replace_forward)), Tanh(layer))
    )
    codes = nn.Linear(4, 7)
    codes.weight = nn.Parameter(torch.ones(7, 4, dtype=torch.int8), requires_grad=False)
    narrow = nn.Linear(4, 7)
    narrow.weight = nn.Parameter(torch.ones(7, 4).to(torch.float8_e4m3fn), requires_grad=False)
    assert not is_plain(codes)
    assert not is_plain(narrow)
    assert [output_width(module, 4) for module in (layer, Adapted(layer, 0))] == [7, 7]
    attention = nn.Module()
    attention.o_proj = Adapted(layer, 0)
    assert output_projection(attention) is attention.o_proj


class Gated(nn.Module):
    """A gated projection, which also needs the layer's input."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.gate = nn.Linear(4, 7), nn.Linear(7, 4)

    def forward(self, values: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        return self.linear(values * torch.sigmoid(self.gate(states)))


def test_a_projection_that_needs_a_second_input_is_refused() -> None:
    attention = nn.Module()
    attention.o_proj = Gated()
    with pytest.raises(AnatomyError, match="named o_proj, out_proj, dense; its o_proj is a Gated, not a linear layer"):
        output_projection(attention)


def test_observing_does_not_replace_a_plain_head(fresh_vlm: Vlm, samples: Any) -> None:
    observe(fresh_vlm, samples, dense_lens_task(len(samples)))
    assert is_plain(fresh_vlm.anatomy.unembedding)
    assert is_plain(fresh_vlm.anatomy.layers[0].self_attn.o_proj)


@pytest.mark.parametrize("storage", [torch.int8, torch.float8_e4m3fn])
def test_pixels_are_cast_to_the_type_in_which_a_model_computes(fresh_vlm: Vlm, storage: torch.dtype) -> None:
    """The first weights are quantised codes, so the type of the other weights counts."""
    projection = fresh_vlm.anatomy.layers[0].self_attn.q_proj
    projection.weight = nn.Parameter(projection.weight.to(storage), requires_grad=False)
    assert fresh_vlm.dtype == torch.float32
    pixels = fresh_vlm.to_device(encode(fresh_vlm.processor, tiny_samples(1), fresh_vlm.anatomy.image_positions).inputs)
    assert pixels["pixel_values"].dtype == torch.float32
    assert pixels["pixel_values"].unique().numel() > 100


def test_cached_readings_of_another_head_are_not_used(tmp_path: Any) -> None:
    """A hook on the head changes no weight, and only the lens's readings."""
    vlm = tiny_vlm()
    tiny_profile(vlm, cache=tmp_path)
    vlm.model.lm_head.register_forward_hook(lambda _, __, output: output.flip(-1))
    reread = tiny_profile(vlm, cache=tmp_path)
    assert have_same_numbers(reread, tiny_profile(vlm))


class Scaled(nn.Linear):
    """A layer with a scale that is neither a parameter nor a buffer."""

    scale = 1.0

    def get_extra_state(self) -> Any:
        return (self.scale, torch.tensor(self.scale))

    def set_extra_state(self, state: Any) -> None:
        self.scale = state[0]


def test_hashes_include_state_outside_parameters_and_buffers(fresh_vlm: Vlm) -> None:
    layer = fresh_vlm.anatomy.layers[2].mlp
    layer.up_proj = Scaled(32, 64, bias=False)
    before, parts = hash_weights(fresh_vlm.model), weight_parts(fresh_vlm)
    layer.up_proj.scale = 1.5
    assert hash_weights(fresh_vlm.model) != before
    assert weight_change(weight_parts(fresh_vlm), parts).layers == (3,)
