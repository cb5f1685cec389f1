"""An observed pass: it equals transformers' hidden states, restores the model and does not depend on the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from harness.data.sample import Sample
from harness.models.prompts.prompt import Batch, encode
from harness.models.vlm import Vlm
from harness.probe.lens_task import LensTask, References
from harness.probe.observation import Observation, observing
from harness.probe.readings import Readings
from harness.probe.self_checks import SelfCheckError
from harness.tests.support import literal
from harness.tests.support.tiny import cast_inputs, dense_lens_task, observe, tiny_vlm


def encoded(vlm: Vlm, samples: list[Sample]) -> tuple[Batch, list[str]]:
    return encode(vlm.processor, samples, vlm.anatomy.image_positions), [sample.id for sample in samples]


def fingerprint(model: Any) -> dict[str, Any]:
    """Return hooks, training flag and attributes of every module, and the attention of every configuration."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs")
    modules = {
        name: (module.training, *(tuple(getattr(module, kind)) for kind in kinds), tuple(sorted(vars(module))))
        for name, module in model.named_modules()
    }
    configs = {
        name: module.config._attn_implementation
        for name, module in model.named_modules()
        if hasattr(module, "config") and hasattr(module.config, "_attn_implementation")
    }
    for key in model.config.sub_configs:
        configs[f"config {key}"] = getattr(model.config, key)._attn_implementation
    return {"modules": modules, "configs": configs}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_residual_points_are_the_hidden_states_of_transformers(
    monkeypatch: pytest.MonkeyPatch, samples: list[Sample], attention: str
) -> None:
    """The last entry is different: transformers returns it after the final norm, our post-norm point."""
    vlm = tiny_vlm(attention=attention)
    batch, ids = encoded(vlm, samples)
    points: list[torch.Tensor] = []
    normed: list[torch.Tensor] = []

    def recording(recorded: list[torch.Tensor], method: Callable[..., None]) -> Callable[..., None]:
        def record(self: Observation, states: torch.Tensor) -> None:
            recorded.append(states.clone())
            method(self, states)

        return record

    monkeypatch.setattr(Observation, "on_residual_point", recording(points, Observation.on_residual_point))
    monkeypatch.setattr(Observation, "on_final_norm", recording(normed, Observation.on_final_norm))
    readings = observe(vlm, samples)
    with torch.inference_mode():
        hidden = vlm.model(**batch.inputs, use_cache=False, output_hidden_states=True).hidden_states
    assert ids == [sample.id for sample in samples]
    assert len(points) == len(hidden) == vlm.anatomy.depth + 1
    for states, expected in zip(points[:-1], hidden[:-1], strict=True):
        assert torch.equal(states, expected)
    assert len(normed) == 1
    assert torch.equal(normed[0], hidden[-1])
    assert not torch.allclose(points[-1], hidden[-1], rtol=0.1)
    for point, states in enumerate(hidden[:-1]):
        expected = literal.similarities(states, batch.groups)
        np.testing.assert_allclose(readings.similarity[:, point], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(readings.post_norm, literal.similarities(hidden[-1], batch.groups), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_observation_does_not_change_the_logits(samples: list[Sample], attention: str, dtype: torch.dtype) -> None:
    vlm = tiny_vlm(attention=attention, dtype=dtype)
    batch, ids = encoded(vlm, samples)
    inputs = cast_inputs(vlm, batch)
    with torch.inference_mode():
        plain = vlm.model(**inputs, use_cache=False, logits_to_keep=1).logits
        with observing(
            vlm.model, vlm.anatomy, batch.groups, sample_ids=ids, lens=dense_lens_task(len(ids)), checking=True
        ) as observation:
            observed = vlm.model(**inputs, use_cache=False, logits_to_keep=1).logits
        observation.readings()
        after = vlm.model(**inputs, use_cache=False, logits_to_keep=1).logits
    assert torch.equal(plain, observed)
    assert torch.equal(plain, after)


@pytest.mark.parametrize("where", ["clean", "in the block", "in a layer", "in the readings"])
def test_the_model_is_restored_after_observation(fresh_vlm: Vlm, samples: list[Sample], where: str) -> None:
    model, layers = fresh_vlm.model, fresh_vlm.anatomy.layers
    model.train()
    layers[1].eval()
    fresh_vlm.anatomy.final_norm.eval()
    layers[0].register_forward_hook(lambda *_: None)
    batch, ids = encoded(fresh_vlm, samples)
    warm_up(fresh_vlm, batch)
    before = fingerprint(model)
    crash = layers[2].register_forward_pre_hook(_crash) if where == "in a layer" else None
    try:
        with (
            torch.inference_mode(),
            observing(
                model, fresh_vlm.anatomy, batch.groups, sample_ids=ids, lens=dense_lens_task(len(ids)), checking=True
            ) as observation,
        ):
            assert not any(module.training for module in model.modules())
            assert fingerprint(model) != before
            if where == "in the block":
                raise ZeroDivisionError
            if where != "in the readings":
                model(**batch.inputs, use_cache=False, logits_to_keep=1)
            observation.readings()
    except (ZeroDivisionError, SelfCheckError):
        assert where != "clean"
    else:
        assert where == "clean"
    if crash is not None:
        crash.remove()
    assert fingerprint(model) == before


def warm_up(vlm: Vlm, batch: Batch) -> None:
    """Run a forward pass, because the first one makes transformers set a flag in the vision tower."""
    with torch.inference_mode():
        vlm.model(**batch.inputs, use_cache=False)


def _crash(*_: Any) -> None:
    raise ZeroDivisionError


def test_different_attention_of_tower_and_decoder_is_restored(fresh_vlm: Vlm, samples: list[Sample]) -> None:
    fresh_vlm.model.set_attn_implementation({"text_config": "eager", "vision_config": "sdpa"})
    warm_up(fresh_vlm, encoded(fresh_vlm, samples)[0])
    before = fingerprint(fresh_vlm.model)
    observe(fresh_vlm, samples)
    assert fingerprint(fresh_vlm.model) == before
    assert fresh_vlm.attention == "eager"
    assert fresh_vlm.model.config.vision_config._attn_implementation == "sdpa"


def words_task(samples: list[Sample], *, dense: bool) -> LensTask:
    """Return a task with different words for every sample, one of them without entries."""
    words = tuple((*((40 * row + 5 * word, 300 - word) for word in range(6)), ()) for row in range(len(samples)))
    return LensTask(References(words, words[1:] + words[:1]), tuple(range(20)), dense=dense)


def row_of(task: LensTask, row: int) -> LensTask:
    words, chance = task.references.words[row : row + 1], task.references.chance_words[row : row + 1]
    return LensTask(References(words, chance), task.block, dense=task.dense)


@pytest.mark.parametrize("dense", [False, True], ids=["pruned", "dense"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_padded_batch_has_the_readings_of_its_samples_alone(
    samples: list[Sample], attention: str, dense: bool
) -> None:
    vlm = tiny_vlm(attention=attention)
    batch, _ = encoded(vlm, samples)
    assert len({int(length) for length in batch.groups.real.sum(1)}) > 1
    task = words_task(samples, dense=dense)
    together = observe(vlm, samples, task)
    assert together.hits is not None
    assert together.hits.sum() > 0
    for row, sample in enumerate(samples):
        alone = observe(vlm, [sample], row_of(task, row))
        for field in fields(Readings):
            in_batch, single = getattr(together, field.name), getattr(alone, field.name)
            if in_batch is None:
                assert single is None
                assert not dense
                continue
            in_batch = in_batch[row : row + 1]
            if field.name == "norm_rows":
                assert in_batch[..., ~batch.groups.real[row].numpy()].max(initial=0.0) == 0.0
                in_batch = in_batch[..., batch.groups.real[row].numpy()]
            np.testing.assert_allclose(in_batch, single, rtol=1e-5, atol=1e-6, err_msg=field.name)


def test_readings_that_were_not_requested_are_none(vlm: Vlm, samples: list[Sample]) -> None:
    batch, ids = encoded(vlm, samples)
    with (
        torch.inference_mode(),
        observing(vlm.model, vlm.anatomy, batch.groups, sample_ids=ids, attention=False) as observation,
    ):
        vlm.model(**batch.inputs, use_cache=False)
    readings = observation.readings()
    present = {field.name for field in fields(Readings) if getattr(readings, field.name) is not None}
    assert present == {"similarity", "post_norm", "means", "norm_ratio", "step_cosine", "last_units"}
    full = observe(vlm, samples)
    np.testing.assert_array_equal(readings.similarity, full.similarity)


@pytest.mark.parametrize("passes", [0, 2])
def test_no_pass_or_several_passes_are_refused(vlm: Vlm, samples: list[Sample], passes: int) -> None:
    batch, ids = encoded(vlm, samples)
    points = passes * (vlm.anatomy.depth + 1)
    with (
        torch.inference_mode(),
        observing(vlm.model, vlm.anatomy, batch.groups, sample_ids=ids) as observation,
    ):
        for _ in range(passes):
            vlm.model(**batch.inputs, use_cache=False, logits_to_keep=1)
    with pytest.raises(SelfCheckError, match=f"{points} residual points were observed, expected 5; .*exactly one"):
        observation.readings()


def test_generation_inside_the_block_is_refused_and_outside_is_unaffected(vlm: Vlm, samples: list[Sample]) -> None:
    batch, ids = encoded(vlm, samples)

    def generate() -> torch.Tensor:
        with torch.inference_mode():
            return vlm.model.generate(**batch.inputs, max_new_tokens=4, do_sample=False, pad_token_id=0)  # type: ignore[no-any-return]

    before = generate()
    assert before.shape[1] > batch.groups.real.shape[1]
    with (
        pytest.raises(SelfCheckError, match=r"4 x 1 tokens, but the prompts have 4 x .* no generate"),
        observing(vlm.model, vlm.anatomy, batch.groups, sample_ids=ids),
    ):
        generate()
    observe(vlm, samples)
    assert torch.equal(generate(), before)


def test_other_hooks_stay_and_still_run(fresh_vlm: Vlm, samples: list[Sample]) -> None:
    calls: list[nn.Module] = []
    handle = fresh_vlm.anatomy.layers[0].register_forward_pre_hook(lambda module, _: calls.append(module))
    observe(fresh_vlm, samples)
    assert len(calls) == 1
    assert handle.id in fresh_vlm.anatomy.layers[0]._forward_pre_hooks
