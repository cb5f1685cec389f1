"""Attention knockout compared with its definition: masks in the complete model, and keys that are removed."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from harness.analysis.knockout_windows import knockout_windows
from harness.data.sample import Sample
from harness.measurement.knockout_losses import caption_pass
from harness.models.likelihood import answered_inputs, caption_likelihoods
from harness.models.prompts.prompt import Batch, encode
from harness.models.vlm import Vlm
from harness.probe.answer_pass import AnswerPass, Blocked, KnockoutError
from harness.probe.knockout import PATHS, Knockout
from harness.tests.support.blocked import blocked_likelihoods
from harness.tests.support.tiny import tiny_vlm

SEEDS = range(4)


def begin(vlm: Vlm, samples: list[Sample], knockout: Knockout) -> tuple[Batch, AnswerPass]:
    batch = encode(vlm.processor, samples, vlm.anatomy.image_positions)
    return batch, caption_pass(vlm, batch, samples, SEEDS[: len(samples)], knockout)


def runner(vlm: Vlm, batch: Batch, answers: AnswerPass) -> Any:
    prompts = answers.prompts
    inputs = answered_inputs(batch, vlm.model.config.model_type, prompts.targets, prompts.is_token)
    return lambda _: vlm.model(**inputs, use_cache=False)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("size", [1, 3])
def test_every_path_equals_an_eager_mask_in_the_complete_model(
    samples: list[Sample], attention: str, size: int
) -> None:
    """A batch with left padding, grouped KV heads, and windows of which the last is shorter."""
    vlm = tiny_vlm(attention=attention)
    knockout = Knockout(vlm.anatomy, size)
    batch, answers = begin(vlm, samples, knockout)
    assert not bool(batch.groups.real.all())
    readings = knockout(answers, tuple(PATHS))
    run, masks = runner(vlm, batch, answers), knockout.masks(answers)
    plain = blocked_likelihoods(vlm.model, vlm.anatomy, run, answers.prompts)
    np.testing.assert_allclose(readings.likelihood, plain, atol=1e-4)
    assert readings.caption_tokens.tolist() == answers.prompts.is_token.sum(1).tolist()
    for path in PATHS:
        losses = getattr(readings, path)
        for window, layers in enumerate(knockout.windows):
            blocked = Blocked(layers, *masks.of(path))
            expected = plain - blocked_likelihoods(vlm.model, vlm.anatomy, run, answers.prompts, blocked)
            np.testing.assert_allclose(losses[:, window], expected, atol=1e-4)
        assert np.abs(losses).max() > 1e-2
    for column, start in enumerate(knockout.starts):
        blocked = Blocked(range(start, vlm.anatomy.depth), *masks.of("later"))
        expected = plain - blocked_likelihoods(vlm.model, vlm.anatomy, run, answers.prompts, blocked)
        np.testing.assert_allclose(readings.onward[:, column], expected, atol=1e-4)


def test_all_layers_blocked_equals_removing_the_keys_of_the_image(samples: list[Sample]) -> None:
    vlm = tiny_vlm(attention="eager")
    knockout = Knockout(vlm.anatomy, 2)
    batch, answers = begin(vlm, samples[:1], knockout)
    loss = knockout(answers, ()).onward[0, 0]
    later, image = (mask[0] for mask in knockout.masks(answers).of("later"))

    def without_image(
        module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float, **_: Any
    ) -> tuple[Any, None]:
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        rows = []
        for position in range(query.shape[2]):
            seen = torch.arange(key.shape[2]) <= position
            # The image's keys do not exist for later tokens.
            kept = (seen & ~(image & later[position])).nonzero()[:, 0]
            logits = (
                query[:, :, position : position + 1].double() @ key[:, :, kept].double().transpose(2, 3)
            ) * scaling
            rows.append(logits.softmax(-1) @ value[:, :, kept].double())
        return torch.cat(rows, 2).transpose(1, 2).to(query.dtype).contiguous(), None

    run = runner(vlm, batch, answers)
    plain = blocked_likelihoods(vlm.model, vlm.anatomy, run, answers.prompts)
    AttentionInterface.register("phase_test_without_image", without_image)
    AttentionMaskInterface.register("phase_test_without_image", eager_mask)
    prompts = answers.prompts
    vlm.model.set_attn_implementation({vlm.anatomy.attention_key: "phase_test_without_image"})
    with torch.inference_mode():
        logits = run(0).logits[:, -prompts.targets.shape[1] - 1 : -1].double()
    values = logits.log_softmax(-1).gather(2, prompts.targets[..., None])[..., 0]
    removed = float((values * prompts.is_token).sum())
    assert abs(loss) > 1e-2
    assert loss == pytest.approx(plain[0] - removed, abs=1e-4)


def test_likelihoods_are_those_of_captions_and_the_model_is_restored(samples: list[Sample]) -> None:
    vlm = tiny_vlm()
    # transformers adds hooks of its own in the first pass.
    captions = caption_likelihoods(vlm, samples, [sample.captions[0] for sample in samples])
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in vlm.model.modules()]
    knockout = Knockout(vlm.anatomy, 2)
    _, answers = begin(vlm, samples, knockout)
    readings = knockout(answers, ("later",))
    np.testing.assert_allclose(readings.likelihood, captions, atol=1e-5)
    assert readings.answer is readings.other is None
    assert [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in vlm.model.modules()] == hooks
    assert not any("forward" in vars(layer) for layer in vlm.anatomy.layers)
    assert vlm.attention == "sdpa"


def test_a_decoder_that_cannot_be_repeated_in_part_runs_again_in_full(
    samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = tiny_vlm()
    in_part = Knockout(vlm.anatomy, 2)
    _, answers = begin(vlm, samples, in_part)
    expected = in_part(answers, ("later", "instruction"))
    complete = AnswerPass._repeat

    def refuse_parts(self: AnswerPass, blocked: Blocked | None, start: int, first: int) -> torch.Tensor:
        if first:
            raise RuntimeError("a part of the tokens")
        return complete(self, blocked, start, first)

    monkeypatch.setattr(AnswerPass, "_repeat", refuse_parts)
    in_full = Knockout(vlm.anatomy, 2)
    _, answers = begin(vlm, samples, in_full)
    readings = in_full(answers, ("later", "instruction"))
    for name in ("later", "instruction", "onward"):
        np.testing.assert_allclose(getattr(readings, name), getattr(expected, name), atol=1e-4)


@pytest.mark.parametrize(
    "change", [lambda logits: logits / 2, lambda logits: 0.1 * torch.tanh(logits / 0.1)], ids=["scaled", "capped"]
)
def test_logits_that_the_model_scales_or_caps_are_its_own(samples: list[Sample], change: Any) -> None:
    vlm = tiny_vlm()

    def change_logits(_: Any, __: Any, output: Any) -> Any:
        output.logits = change(output.logits)
        return output

    vlm.model.register_forward_hook(change_logits)
    knockout = Knockout(vlm.anatomy, 2)
    for _ in range(2):  # The second batch is not checked again.
        batch, answers = begin(vlm, samples, knockout)
        losses = knockout(answers, ("later",)).later
        assert losses is not None
        run = runner(vlm, batch, answers)
        plain = blocked_likelihoods(vlm.model, vlm.anatomy, run, answers.prompts)
        for window, loss in zip(knockout.windows, losses.T, strict=True):
            blocked = Blocked(window, *knockout.masks(answers).of("later"))
            literal = plain - blocked_likelihoods(vlm.model, vlm.anatomy, run, answers.prompts, blocked)
            np.testing.assert_allclose(loss, literal, atol=1e-4)
            assert np.abs(literal).max() > 1e-3


def test_a_model_with_other_logits_at_every_call_is_refused(samples: list[Sample]) -> None:
    vlm, calls = tiny_vlm(), itertools.count(2)

    def divide(_: Any, __: Any, output: Any) -> Any:
        output.logits = output.logits / next(calls)
        return output

    vlm.model.register_forward_hook(divide)
    knockout = Knockout(vlm.anatomy, 2)
    _, answers = begin(vlm, samples, knockout)
    with pytest.raises(KnockoutError, match="do not give its own logits"):
        knockout(answers, ("later",))


def test_rounding_of_a_likelihood_near_zero_is_no_difference() -> None:
    knockout = Knockout(tiny_vlm().anatomy, 2)
    answers: Any = SimpleNamespace(
        sums=lambda values: values,
        own=np.array([-0.01]),
        log_probabilities=np.array([-0.010001]),
        likelihoods=lambda **_: np.array([-0.009998]),
    )
    masks: Any = SimpleNamespace(first=0)
    assert knockout._check(answers, masks)


def test_windows_cover_all_layers_once() -> None:
    for depth in range(1, 40):
        for size in range(1, depth + 1):
            assert [layer for window in knockout_windows(depth, size) for layer in window] == list(range(depth))
