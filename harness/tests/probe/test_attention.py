"""Norm-based attention compared with an explicit softmax and value transform, head by head."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from harness.data.sample import Sample
from harness.models.prompts.prompt import encode
from harness.models.vlm import Vlm
from harness.probe.attention import AttentionError, LastRow, apply_gate, last_row, reading_attention
from harness.probe.attention_call import AttentionCall
from harness.probe.last_token import ShareReader, linear_map
from harness.tests.support import literal
from harness.tests.support.tiny import cast_inputs, dense_lens_task, observe, random_groups, tiny_vlm


@given(
    seed=st.integers(0, 2**32 - 1),
    key_heads=st.integers(1, 3),
    served=st.integers(1, 3),
    keys=st.integers(1, 7),
    queries=st.integers(1, 3),
    kind=st.sampled_from(["none", "bool", "additive"]),
    bias=st.booleans(),
)
def test_last_row_equals_explicit_softmax(
    seed: int, key_heads: int, served: int, keys: int, queries: int, kind: str, bias: bool
) -> None:
    rng = np.random.default_rng(seed)
    batch, heads, dim, value_dim, width = 2, key_heads * served, 4, 3, 5
    query = rng.normal(size=(batch, heads, queries, dim))
    key = rng.normal(size=(batch, key_heads, keys, dim))
    value = rng.normal(size=(batch, key_heads, keys, value_dim))
    visible = np.ones((batch, keys), dtype=bool)
    mask = None
    if kind != "none":
        visible = rng.random((batch, keys)) < 0.6
        visible[:, -1] = True
        # Earlier query rows mask every key, so that only the last row may be read.
        rows = np.zeros((batch, 1, queries, keys), dtype=bool)
        rows[:, 0, -1] = visible
        mask = torch.tensor(rows)
        if kind == "additive":
            mask = torch.zeros(rows.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    projection = nn.Linear(heads * value_dim, width, bias=bias).double()
    row = last_row(AttentionCall(torch.tensor(query), torch.tensor(key), torch.tensor(value), mask, 0.7))
    with torch.no_grad():
        vectors = linear_map(projection, row.values)(row.values).numpy()
    for b in range(batch):
        weights, norms, total = literal.last_row_norms(
            query[b, :, -1], key[b], value[b], visible[b], literal.to_float64(projection.weight), 0.7
        )
        np.testing.assert_allclose(row.weights[b].numpy(), weights, rtol=1e-9, atol=1e-30)
        np.testing.assert_allclose(np.linalg.norm(vectors[b], axis=1), norms, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(vectors[b].sum(0), total, rtol=1e-9, atol=1e-12)


def test_scaling_defaults_to_one_over_the_root_of_the_dimension_and_softcap_limits_logits() -> None:
    generator = torch.Generator().manual_seed(3)
    query, key, value = (torch.randn(1, 2, 5, 16, generator=generator, dtype=torch.float64) for _ in range(3))
    logits = (query[:, :, -1:] @ key.transpose(2, 3))[:, :, 0] / 4.0
    plain = last_row(AttentionCall(query, key, value, None, None))
    torch.testing.assert_close(plain.weights, logits.softmax(-1))
    capped = last_row(AttentionCall(query, key, value, None, None, softcap=0.5))
    torch.testing.assert_close(capped.weights, (0.5 * torch.tanh(logits / 0.5)).softmax(-1))


def test_16_bit_attention_is_reduced_in_float32() -> None:
    generator = torch.Generator().manual_seed(4)
    query, key, value = (torch.randn(1, 2, 5, 8, generator=generator).bfloat16() for _ in range(3))
    row = last_row(AttentionCall(query, key, value, None, None))
    exact = last_row(AttentionCall(query.double(), key.double(), value.double(), None, None))
    assert row.weights.dtype == row.values.dtype == torch.float32
    torch.testing.assert_close(row.weights.double(), exact.weights, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(row.values.double(), exact.values, rtol=1e-5, atol=1e-7)


def test_vectors_of_16_bit_weights_are_products_in_float32_without_the_bias() -> None:
    projection = nn.Linear(4, 3).bfloat16()
    with torch.no_grad():
        projection.weight.copy_(torch.eye(3, 4))
        projection.bias.copy_(torch.tensor([1 / 3, 1 / 3, 1 / 3]))
        values = torch.tensor([[[1.0, 2.0 + 2**-12, 3.0, 0.0]]])
        assert torch.equal(linear_map(projection, values)(values), values[..., :3])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["fp64", "fp32"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("bias", [False, True], ids=["plain", "biased"])
def test_norms_and_shares_of_a_model_equal_those_of_each_head(
    samples: list[Sample], dtype: torch.dtype, attention: str, bias: bool
) -> None:
    """A batch with left padding and grouped KV heads, compared in every layer with each head's slice of W_O."""
    vlm = tiny_vlm(dtype=dtype, bias=bias, attention=attention)
    if attention == "eager" and dtype == torch.float64:
        # transformers' eager softmax runs in float32, where float64's smallest mask value becomes minus infinity. The
        # model therefore returns NaN for padded float64 batches.
        samples = samples[:1]
    batch = encode(vlm.processor, samples, vlm.anatomy.image_positions)
    assert bool(batch.groups.real.all()) == (len(samples) == 1)
    readings = observe(vlm, samples, dense_lens_task(len(samples)))
    assert readings.norm_rows is not None
    assert readings.norm_shares is not None
    assert readings.weight_shares is not None
    expected = literal.attention(vlm, cast_inputs(vlm, batch), batch.groups)
    for layer, rows in enumerate(expected):
        for row, (weights, norms, _) in enumerate(rows):
            np.testing.assert_allclose(readings.norm_rows[row, layer], norms, rtol=1e-5, atol=1e-5 * norms.max())
            for shares, amounts in ((readings.norm_shares, norms), (readings.weight_shares, weights.mean(0))):
                np.testing.assert_allclose(shares[row, layer], literal.shares(amounts, batch.groups, row), rtol=1e-5)
    np.testing.assert_allclose(readings.norm_shares.sum(-1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(readings.weight_shares.sum(-1), 1.0, rtol=1e-6)


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "biased"])
def test_parts_sum_to_the_output_projection(samples: list[Sample], bias: bool) -> None:
    vlm = tiny_vlm(dtype=torch.float64, bias=bias)
    batch = encode(vlm.processor, samples, vlm.anatomy.image_positions)
    inputs = cast_inputs(vlm, batch)
    parts: dict[int, Any] = {}

    def read(layer: int, projection: nn.Linear, row: LastRow) -> None:
        parts[layer] = linear_map(projection, row.values)(row.values).sum(1) + (projection.bias if bias else 0.0)

    with torch.inference_mode(), reading_attention(vlm.model, vlm.anatomy, read):
        vlm.model(**inputs, use_cache=False)
    outputs = [layer[3][:, -1] for layer in literal.capture_attention_inputs(vlm, inputs)]
    assert sorted(parts) == list(range(vlm.anatomy.depth))
    for layer, output in enumerate(outputs):
        np.testing.assert_allclose(parts[layer].numpy(), output, rtol=1e-5, atol=1e-9)


def test_weights_equal_the_attentions_that_an_eager_model_returns(samples: list[Sample]) -> None:
    vlm = tiny_vlm(attention="sdpa")
    eager = tiny_vlm(attention="eager")
    batch = encode(vlm.processor, samples, vlm.anatomy.image_positions)
    with torch.inference_mode():
        returned = eager.model(**batch.inputs, output_attentions=True, use_cache=False).attentions
    weights: list[torch.Tensor] = []
    with (
        torch.inference_mode(),
        reading_attention(vlm.model, vlm.anatomy, lambda _, __, row: weights.append(row.weights)),
    ):
        vlm.model(**batch.inputs, use_cache=False)
    assert len(weights) == len(returned) == vlm.anatomy.depth
    for read, expected in zip(weights, returned, strict=True):
        torch.testing.assert_close(read, expected[:, :, -1], rtol=1e-5, atol=1e-7)
        assert float(read.masked_select(~batch.groups.real.unsqueeze(1)).abs().max()) == 0.0


def test_calls_outside_the_decoder_are_not_read(vlm: Vlm, samples: list[Sample]) -> None:
    """The vision tower has attention too, and may share the class of the decoder's."""
    batch = encode(vlm.processor, samples[:1], vlm.anatomy.image_positions)
    layers: list[int] = []
    with torch.inference_mode(), reading_attention(vlm.model, vlm.anatomy, lambda layer, _, __: layers.append(layer)):
        vlm.model(**batch.inputs, use_cache=False)
        vlm.model.get_image_features(pixel_values=batch.inputs["pixel_values"])
    assert layers == list(range(vlm.anatomy.depth))


@given(seed=st.integers(0, 2**32 - 1))
def test_shares_sum_to_one_and_equal_the_literal_shares(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = random_groups(rng, 3)
    amounts = torch.tensor(rng.random(groups.real.shape)) * groups.real
    shares = ShareReader(groups)(amounts.unsqueeze(1))[:, 0]
    torch.testing.assert_close(shares.sum(-1), torch.ones(3, dtype=torch.float64))
    for row in range(3):
        np.testing.assert_allclose(shares[row].numpy(), literal.shares(amounts[row].numpy(), groups, row), rtol=1e-9)


def test_an_attention_implementation_other_than_sdpa_or_eager_is_refused(fresh_vlm: Vlm) -> None:
    fresh_vlm.anatomy.text_config._attn_implementation = "flex_attention"
    with (
        pytest.raises(AttentionError, match=r"'flex_attention'.*load it with sdpa or eager"),
        reading_attention(fresh_vlm.model, fresh_vlm.anatomy, lambda *_: None),
    ):
        pass
    assert fresh_vlm.attention == "flex_attention"


def test_position_bias_is_added_and_sinks_take_their_share() -> None:
    generator = torch.Generator().manual_seed(5)
    query, key, value = (torch.randn(2, 3, 5, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    bias = torch.randn(1, 3, 5, 5, generator=generator, dtype=torch.float64)
    sinks = torch.randn(3, generator=generator, dtype=torch.float64)
    row = last_row(AttentionCall(query, key, value, None, 0.5, None, bias, sinks))
    for b in range(2):
        for h in range(3):
            logits = [float(query[b, h, -1] @ key[b, h, j]) * 0.5 + float(bias[0, h, -1, j]) for j in range(5)]
            total = sum(np.exp(logit) for logit in (*logits, float(sinks[h])))
            np.testing.assert_allclose(row.weights[b, h].numpy(), np.exp(logits) / total, rtol=1e-9)
    wide = last_row(AttentionCall(query, key, value, None, 0.5, None, bias, sinks.view(1, 3, 1, 1).expand(2, 3, 5, 1)))
    torch.testing.assert_close(wide.weights, row.weights)
    assert bool((row.weights.sum(-1) < 1.0).all())


def _row_and_projection() -> tuple[LastRow, nn.Linear, torch.Tensor]:
    generator = torch.Generator().manual_seed(6)
    values = torch.randn(2, 7, 6, generator=generator, dtype=torch.float64)
    projection = nn.Linear(6, 5, bias=False).double().requires_grad_(False)
    return LastRow(torch.ones(2, 1, 7), values), projection, values.sum(1)


def test_a_gate_scales_every_value_vector_so_that_their_sum_equals_the_projection_input() -> None:
    row, projection, attention_output = _row_and_projection()
    gate = torch.rand(2, 6, dtype=torch.float64)
    scaled = apply_gate(row, projection, attention_output, attention_output * gate)
    assert not scaled.unusable
    torch.testing.assert_close(scaled.values, row.values * gate.unsqueeze(1))
    torch.testing.assert_close(
        linear_map(projection, scaled.values)(scaled.values).sum(1), projection(attention_output * gate)
    )


def test_without_a_gate_the_row_is_unchanged_and_the_connection_is_classified_once() -> None:
    row, projection, attention_output = _row_and_projection()
    assert apply_gate(row, projection, attention_output, attention_output.clone()) is row
    assert apply_gate(row, projection, attention_output, -attention_output) is row


@pytest.mark.parametrize("is_spoiled", [[True, False], [True, True]])
def test_a_first_sample_of_nan_is_not_classified_as_a_gate(is_spoiled: list[bool]) -> None:
    row, projection, attention_output = _row_and_projection()
    broken = attention_output.masked_fill(torch.tensor(is_spoiled).unsqueeze(1), torch.nan)
    assert apply_gate(row, projection, broken, broken.clone()) is row
    assert apply_gate(row, projection, attention_output, attention_output.clone()) is row


def test_a_sample_of_nan_does_not_affect_the_gate_of_another_sample() -> None:
    row, projection, attention_output = _row_and_projection()
    gate = torch.rand(2, 6, dtype=torch.float64)
    both_finite = apply_gate(row, projection, attention_output, attention_output * gate)
    broken = attention_output.masked_fill(torch.tensor([[True], [False]]), torch.nan)
    assert torch.equal(apply_gate(row, projection, broken, broken * gate).values[1], both_finite.values[1])


@pytest.mark.parametrize(
    "change",
    [lambda output: output - output.mean(-1, keepdim=True), lambda output: output[:, :3]],
    ids=["norm", "width"],
)
def test_an_operation_that_is_no_gate_makes_the_row_unusable(change: Any) -> None:
    row, projection, attention_output = _row_and_projection()
    assert apply_gate(row, projection, attention_output, change(attention_output)).unusable


@pytest.mark.parametrize(("factor", "both_agree"), [(1.0, True), (2.0, False)])
def test_a_layer_that_attends_twice_has_weights_only_if_both_calls_agree(
    fresh_vlm: Vlm, samples: list[Sample], factor: float, both_agree: bool
) -> None:
    before, attention = observe(fresh_vlm, samples), fresh_vlm.anatomy.layers[1].self_attn
    inner = attention.forward

    def twice(hidden_states: torch.Tensor, **options: Any) -> Any:
        inner(hidden_states * factor, **options)
        return inner(hidden_states, **options)

    attention.forward = twice
    after = observe(fresh_vlm, samples)
    assert after.norm_shares is not None
    assert after.norm_shares.any((0, 2)).tolist() == [True, False, True, True]
    assert after.weight_shares is not None
    assert before.weight_shares is not None
    np.testing.assert_array_equal(after.weight_shares[:, 1], before.weight_shares[:, 1] * both_agree)
