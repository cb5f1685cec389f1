"""Cached generation equals full passes in every type, and planted faults of it are noticed at their first step."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import pytest
import torch
import transformers

from harness.errors import PhaseError
from harness.models.anatomy import find_anatomy
from harness.models.kinds import kind_of
from harness.releases.diff.generation import GENERATION_TOLERANCE, GenerationCheck, check_generation
from harness.releases.sweep.type_verdicts import vision_language_types
from harness.releases.tiny.prompts import TinyPrompt, tiny_prompt
from harness.releases.tiny.tiny_model import tiny_config, tiny_model
from harness.tests.support.documented_release import expecting_upstream_failures

TYPES = vision_language_types()
# Types whose cached steps differ in transformers itself, with the reason: one in every release from 5.0 on, the other
# since 5.10, when its positions were no longer prepared by `generate` (transformers issue 45834).
PADDING_COUNTS = "positions of cached tokens count left padding, those of the prompt do not"
DIFFERENT = {"kosmos-2": PADDING_COUNTS, "kosmos-2.5": PADDING_COUNTS}
# Types of which a plain pass depends on something that only `generate` states.
ABSOLUTE = {"mistral_large4": "a pass without position_ids counts left padding as positions"}

ModelInputs = dict[str, Any]
Fault = Callable[[ModelInputs, bool], None]


def built(model_type: str) -> tuple[Any, TinyPrompt]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = tiny_model(model_type, TYPES[model_type])
        return model, tiny_prompt(model, find_anatomy(model))


@cache
def shared(model_type: str) -> tuple[Any, TinyPrompt]:
    return built(model_type)


# In order: plain; three rotary axes; queries before the text; a bidirectional image; a bidirectional prefix.
@pytest.mark.parametrize("model_type", ["llava", "qwen2_5_vl", "instructblip", "gemma3", "paligemma"])
def test_generation_equals_full_passes(model_type: str) -> None:
    check = check_generation(*shared(model_type))
    assert check.difference is not None
    assert 0 < check.difference < GENERATION_TOLERANCE / 5
    assert (check.step, check.remark, check.differs) == (None, "", False)


@pytest.mark.parametrize("model_type", [name for name in ABSOLUTE if name in TYPES])
def test_positions_are_stated_where_padding_would_count(model_type: str) -> None:
    check = check_generation(*shared(model_type))
    assert not check.differs
    assert check.remark == ABSOLUTE[model_type]


@pytest.mark.parametrize("model_type", DIFFERENT)
def test_cached_positions_that_count_padding_are_noticed(model_type: str) -> None:
    check = check_generation(*shared(model_type))
    if not check.differs:
        pytest.skip(f"transformers {transformers.__version__} does not have this fault")
    assert (check.step, check.remark) == (1, "only in samples with left padding")


def shift_cached_positions(inputs: ModelInputs, is_prefill: bool) -> None:
    if not is_prefill:
        inputs["position_ids"] = inputs["position_ids"] + 1


def restart_positions(inputs: ModelInputs, is_prefill: bool) -> None:
    if not is_prefill:
        inputs["position_ids"] = torch.zeros_like(inputs["position_ids"])


def lose_rope_deltas(inputs: ModelInputs, is_prefill: bool) -> None:
    """Positions of cached tokens are those of text, as if the image's tokens counted one by one."""
    if not is_prefill:
        inputs["position_ids"] = inputs["position_ids"][:1].expand_as(inputs["position_ids"])


def lose_cached_mask(inputs: ModelInputs, is_prefill: bool) -> None:
    if not is_prefill:
        inputs["attention_mask"] = None


def lose_token_types(inputs: ModelInputs, is_prefill: bool) -> None:
    if is_prefill:
        inputs["token_type_ids"] = torch.zeros_like(inputs["token_type_ids"])


def lose_rotary_axes(inputs: ModelInputs, is_prefill: bool) -> None:
    """All rotary axes have the positions of text, from the prefill on."""
    inputs["position_ids"] = inputs["position_ids"][:1].expand_as(inputs["position_ids"])


@pytest.mark.parametrize(
    ("model_type", "fault", "step"),
    [
        ("llava", shift_cached_positions, 1),
        ("qwen2_5_vl", shift_cached_positions, 1),
        ("llava", restart_positions, 1),
        ("qwen2_5_vl", lose_rope_deltas, 1),
        ("qwen2_5_vl", lose_rotary_axes, 0),
        ("gemma3", lose_token_types, 0),
        ("llava", lose_cached_mask, 1),
        ("instructblip", lose_cached_mask, 1),
    ],
)
def test_a_planted_fault_is_noticed_at_its_first_step(
    model_type: str, fault: Fault, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = _check_with(fault, model_type, monkeypatch)
    assert check.differs
    assert check.step == step
    only_padded = fault is lose_cached_mask
    assert check.remark == ("only in samples with left padding" if only_padded else "")


def _spoiled(module: Any, fault: Fault) -> Callable[..., ModelInputs]:
    prepare = module.prepare_inputs_for_generation

    # `generate` reads the signature.
    @wraps(prepare)
    def prepare_wrongly(input_ids: torch.Tensor, **options: Any) -> ModelInputs:
        inputs: ModelInputs = prepare(input_ids, **options)
        fault(inputs, bool(options.get("is_first_iteration")))
        return inputs

    return prepare_wrongly


def _check_with(fault: Fault, model_type: str, monkeypatch: pytest.MonkeyPatch) -> GenerationCheck:
    model, prompt = shared(model_type)
    # Models with a complete language model inside pass generation on to it.
    for module in (module for module in model.modules() if hasattr(module, "prepare_inputs_for_generation")):
        monkeypatch.setattr(module, "prepare_inputs_for_generation", _spoiled(module, fault))
    return check_generation(model, prompt)


def test_a_fault_of_the_second_cached_step_is_noticed_there(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[bool] = []

    def shift_later_positions(inputs: ModelInputs, is_prefill: bool) -> None:
        steps.append(is_prefill)
        if len(steps) > 2:
            inputs["position_ids"] = inputs["position_ids"] + 1

    assert _check_with(shift_later_positions, "llava", monkeypatch).step == 2


def test_a_pass_that_sees_later_tokens_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cached step can equal such a pass, so the difference is that of the prefill."""
    model, prompt = shared("llava")
    layer = model.get_decoder().layers[0]
    forward = layer.forward

    def mix_tokens(states: torch.Tensor, **options: Any) -> torch.Tensor:
        return torch.as_tensor(forward(states + 0.1 * states[:, -1:], **options))

    monkeypatch.setattr(layer, "forward", mix_tokens)
    check = check_generation(model, prompt)
    assert (check.differs, check.step) == (True, 0)
    assert check.remark == "tokens after the prompt change the logits at its end"


def test_a_model_that_cannot_be_asked_says_why() -> None:
    model, prompt = shared("llava")
    refused = check_generation(model, prompt._replace(inputs={**prompt.inputs, "pixel_colours": torch.ones(2)}))
    assert (refused.difference, refused.step, refused.differs) == (None, None, False)
    assert refused.remark.startswith("generate: ValueError: The following `model_kwargs` are not used")
    assert "pixel_colours" in refused.remark
    without = check_generation(model.model, prompt)
    assert (without.difference, without.remark) == (None, "LlavaModel has no generate")


def test_a_difference_of_nan_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    width = tiny_config("llava").text_config.hidden_size

    def spoil(inputs: ModelInputs, is_prefill: bool) -> None:
        if not is_prefill:
            inputs["inputs_embeds"] = torch.full((*inputs.pop("input_ids").shape, width), torch.nan)

    check = _check_with(spoil, "llava", monkeypatch)
    assert (check.differs, check.step) == (True, 1)


@pytest.mark.types
@pytest.mark.parametrize("model_type", TYPES)
def test_every_type_generates_what_full_passes_give(model_type: str) -> None:
    if kind_of(model_type).refused:
        pytest.skip(kind_of(model_type).reason)
    try:
        model, prompt = built(model_type)
    except (PhaseError, ImportError) as error:
        pytest.skip(str(error))
    check = check_generation(model, prompt)
    if check.differs and model_type in DIFFERENT:
        pytest.xfail(f"in transformers, {DIFFERENT[model_type]}")
    with expecting_upstream_failures():
        assert check.difference is not None, check.remark
        assert not check.differs, check
        assert check.remark == ABSOLUTE.get(model_type, "")
