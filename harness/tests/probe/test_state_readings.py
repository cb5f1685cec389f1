"""Norm ratio, steps, last states, sink share and the instruction's attention, against their float64 definitions."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.data.sample import Sample
from harness.measurement.arrays import visual_integration
from harness.models.prompts.prompt import TokenGroups, encode
from harness.models.vlm import Vlm
from harness.probe.attention_call import AttentionCall, InstructionQueries
from harness.probe.similarity import GroupSums
from harness.tests.support import literal
from harness.tests.support.tiny import cast_inputs, observe, random_groups, tiny_vlm


def hidden_states(vlm: Vlm, samples: list[Sample]) -> tuple[list[torch.Tensor], TokenGroups]:
    """Return the residual points of transformers up to the input of the last layer, and the token groups."""
    batch = encode(vlm.processor, samples, vlm.anatomy.image_positions)
    with torch.inference_mode():
        states = vlm.model(**cast_inputs(vlm, batch), use_cache=False, output_hidden_states=True).hidden_states
    return list(states[:-1]), batch.groups


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=["fp64", "fp32", "bf16"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_norms_steps_and_last_states_of_a_model_equal_the_definition(
    samples: list[Sample], dtype: torch.dtype, attention: str
) -> None:
    vlm = tiny_vlm(dtype=dtype, attention=attention)
    # In float64 eager attention returns NaN for padded batches.
    samples = samples[:1] if attention == "eager" and dtype == torch.float64 else samples
    readings = observe(vlm, samples)
    points, groups = hidden_states(vlm, samples)
    for point, states in enumerate(points):
        expected = literal.norm_ratio(states, groups)
        np.testing.assert_allclose(readings.norm_ratio[:, point], expected, rtol=1e-5)
        last = literal.to_float64(states)[:, -1]
        units = last / np.linalg.norm(last, axis=1, keepdims=True)
        np.testing.assert_allclose(readings.last_units[:, point], units, atol=1e-5)
    for layer, (before, after) in enumerate(pairwise(points)):
        expected = literal.step_cosines(before, after, groups)
        np.testing.assert_allclose(readings.step_cosine[:, layer], expected, atol=1e-5)
    assert readings.step_cosine.shape == (len(samples), vlm.anatomy.depth, 2)
    assert readings.norm_ratio.shape == (len(samples), vlm.anatomy.depth + 1)


def test_a_layer_that_changes_its_input_in_place_has_the_step_that_it_makes(
    fresh_vlm: Vlm, samples: list[Sample]
) -> None:
    # A padded batch is copied anyway.
    samples = samples[:1]
    expected, layer = observe(fresh_vlm, samples), fresh_vlm.anatomy.layers[1]
    forward = layer.forward

    def changed(hidden_states: torch.Tensor, **options: Any) -> Any:
        return hidden_states.copy_(forward(hidden_states, **options))

    layer.forward = changed
    readings = observe(fresh_vlm, samples)
    np.testing.assert_allclose(readings.step_cosine, expected.step_cosine, atol=1e-6)
    assert readings.step_cosine[:, 1].max() < 0.999


@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(1e-3, 1e3))
def test_steps_are_cosines_and_norm_ratios_scale(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    groups = random_groups(rng, 2)
    sums = GroupSums(groups)
    before, after = (torch.tensor(rng.normal(size=(*groups.real.shape, 5))) for _ in range(2))
    wide, later = sums.widen(before), sums.widen(after)
    steps = sums.step_cosines(wide, later)
    np.testing.assert_allclose(steps.numpy(), literal.step_cosines(before, after, groups), atol=1e-9)
    torch.testing.assert_close(sums.step_cosines(sums.widen(scale * before), later), steps)
    torch.testing.assert_close(sums.step_cosines(wide, wide), torch.ones_like(steps))
    ratios = sums.norm_ratio(sums.sums(wide))
    np.testing.assert_allclose(ratios.numpy(), literal.norm_ratio(before, groups), rtol=1e-9)
    longer = torch.where(groups.image.unsqueeze(-1), scale * before, before)
    torch.testing.assert_close(sums.norm_ratio(sums(longer)), scale * ratios)


def test_padding_and_states_of_norm_zero_do_not_count() -> None:
    groups = random_groups(np.random.default_rng(3), 3)
    sums = GroupSums(groups)
    states = torch.randn((*groups.real.shape, 4), generator=torch.Generator().manual_seed(0))
    spoiled = states.masked_fill(~groups.real.unsqueeze(-1), torch.nan)
    assert torch.equal(
        sums.step_cosines(sums.widen(spoiled), sums.widen(spoiled)),
        sums.step_cosines(sums.widen(states), sums.widen(states)),
    )
    assert torch.equal(sums.norm_ratio(sums(spoiled)), sums.norm_ratio(sums(states)))
    steps = sums.step_cosines(sums.widen(torch.zeros_like(states)), sums.widen(states))
    assert torch.equal(steps, torch.zeros_like(steps))


def test_visual_integration_is_the_cosine_distance_of_the_last_states() -> None:
    rng = np.random.default_rng(0)
    real, blank = rng.normal(size=(2, 3, 5, 7)).astype(np.float32)
    blank[:, 0] = real[:, 0]
    distances = visual_integration(real, blank)
    for row, rows in enumerate(zip(real, blank, strict=True)):
        expected = [1.0 - literal.cosine(*states) for states in zip(*rows, strict=True)]
        np.testing.assert_allclose(distances[row], expected, atol=1e-6)
    assert distances.dtype == np.float32
    assert (distances[:, 0] == 0.0).all()
    assert visual_integration(np.zeros((1, 2, 3)), np.ones((1, 2, 3))).tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("padded", [True, False])
def test_the_instructions_attention_equals_that_of_an_eager_model(
    samples: list[Sample], attention: str, padded: bool
) -> None:
    """Without padding sdpa receives no mask and hides later keys itself."""
    vlm, eager = tiny_vlm(attention=attention), tiny_vlm(attention="eager")
    samples = samples if padded else samples[:1]
    batch = encode(vlm.processor, samples, vlm.anatomy.image_positions)
    assert bool(batch.groups.real.all()) is not padded
    readings = observe(vlm, samples)
    assert readings.instruction_share is not None
    with torch.inference_mode():
        returned = eager.model(**batch.inputs, output_attentions=True, use_cache=False).attentions
    for layer, weights in enumerate(returned):
        for row, heads in enumerate(literal.to_float64(weights)):
            instruction, image = (getattr(batch.groups, name)[row].numpy() for name in ("instruction", "image"))
            expected = literal.image_share(heads, instruction, image)
            assert readings.instruction_share[row, layer] == pytest.approx(expected, abs=1e-5)
    assert readings.instruction_share.min() > 0.0


def test_the_sink_share_is_the_weight_share_minus_the_norm_share(vlm: Vlm, samples: list[Sample]) -> None:
    readings = observe(vlm, samples)
    assert readings.sink_share is not None
    assert readings.weight_shares is not None
    assert readings.norm_shares is not None
    expected = readings.weight_shares[:, :, 0].astype(np.float64) - readings.norm_shares[:, :, 0]
    np.testing.assert_allclose(readings.sink_share, expected, atol=1e-6)
    assert np.abs(readings.sink_share).max() > 1e-3


def test_layers_without_usable_norms_have_no_sink_share_but_an_instructions_attention(
    fresh_vlm: Vlm, samples: list[Sample]
) -> None:
    attention = fresh_vlm.anatomy.layers[1].self_attn
    inner = attention.forward

    def twice(hidden_states: torch.Tensor, **options: Any) -> Any:
        inner(hidden_states, **options)
        return inner(hidden_states, **options)

    before = observe(fresh_vlm, samples)
    attention.forward = twice
    after = observe(fresh_vlm, samples)
    assert after.sink_share is not None
    assert after.instruction_share is not None
    assert after.sink_share.any(0).tolist() == [True, False, True, True]
    np.testing.assert_array_equal(after.instruction_share, before.instruction_share)


@given(
    seed=st.integers(0, 2**32 - 1),
    key_heads=st.integers(1, 2),
    served=st.integers(1, 3),
    kind=st.sampled_from(["none", "causal", "bool", "additive", "window"]),
    bias=st.sampled_from(["none", "one", "each"]),
    sinks=st.sampled_from(["none", "heads", "queries"]),
    softcap=st.sampled_from([None, 0.7]),
    chunk=st.sampled_from([1, 2**24]),
)
def test_the_instructions_attention_equals_an_explicit_softmax(
    seed: int, key_heads: int, served: int, kind: str, bias: str, sinks: str, softcap: float | None, chunk: int
) -> None:
    """Padding, grouped heads, masks, windows, position bias, sinks and soft caps count as in the model's attention."""
    rng = np.random.default_rng(seed)
    groups = random_groups(rng, 2)
    batch, tokens = groups.real.shape
    heads, dim = key_heads * served, 4
    query, key = rng.normal(size=(batch, heads, tokens, dim)), rng.normal(size=(batch, key_heads, tokens, dim))
    real = groups.real.numpy()
    visible = np.broadcast_to(real[:, None, None, :], (batch, 1, tokens, tokens)).copy()
    if kind in ("causal", "bool", "additive", "window"):
        visible &= np.tri(tokens, dtype=bool)
    if kind == "window":
        visible &= ~np.tri(tokens, k=-4, dtype=bool)
    mask = None
    if kind == "none":
        visible[:] = True
    elif kind == "causal":
        visible[:] = np.tri(tokens, dtype=bool)
    else:
        mask = torch.tensor(visible)
        if kind == "additive":
            mask = torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, torch.finfo(torch.float64).min)
    biases = {"none": None, "one": rng.normal(size=(1, heads, tokens, tokens)),
              "each": rng.normal(size=(batch, heads, tokens, tokens))}[bias]  # fmt: skip
    sink = {"none": None, "heads": rng.normal(size=heads), "queries": rng.normal(size=(batch, heads, tokens, 1))}[sinks]
    call = AttentionCall(
        torch.tensor(query), torch.tensor(key), torch.tensor(key), mask, 0.7, softcap,
        None if biases is None else torch.tensor(biases), None if sink is None else torch.tensor(sink),
        causal=kind == "causal",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.probe.attention_call._MOST_WEIGHTS", chunk)
        shares = InstructionQueries(groups).image_share(call)
    assert shares is not None
    for b in range(batch):
        weights = np.zeros((heads, tokens, tokens))
        for h in range(heads):
            for i in np.flatnonzero(groups.instruction[b].numpy()):
                logits = key[b, h // served] @ query[b, h, i] * 0.7
                logits = logits if softcap is None else softcap * np.tanh(logits / softcap)
                logits = logits if biases is None else logits + biases[min(b, len(biases) - 1), h, i]
                logits = np.where(visible[b, 0, i], logits, -np.inf)
                own = [] if sink is None else [sink[h] if sink.ndim == 1 else sink[b, h, i, 0]]
                weights[h, i] = literal.softmax(np.concatenate([logits, own]))[:tokens]
        expected = literal.image_share(weights, groups.instruction[b].numpy(), groups.image[b].numpy())
        np.testing.assert_allclose(float(shares[b]), expected, rtol=1e-9, atol=1e-12)


def test_an_instruction_before_the_image_has_no_share() -> None:
    groups = TokenGroups(
        **{name: torch.tensor([[letter in letters for letter in "buuttii"]]) for name, letters in
           {"image": "i", "text": "ut", "instruction": "u", "other": "bt", "real": "buti"}.items()}
    )  # fmt: skip
    states = torch.randn((1, 2, 7, 4), generator=torch.Generator().manual_seed(0))
    assert InstructionQueries(groups).image_share(AttentionCall(states, states, states, causal=True)) == 0.0


def test_attention_to_other_inputs_has_no_share() -> None:
    groups = random_groups(np.random.default_rng(0), 2)
    states = torch.zeros((2, 1, groups.real.shape[1], 4))
    queries = InstructionQueries(groups)
    assert queries.image_share(AttentionCall(states, states[:, :, :3], states[:, :, :3])) is None
    assert queries.image_share(AttentionCall(states[:, :, :3], states, states)) is None
