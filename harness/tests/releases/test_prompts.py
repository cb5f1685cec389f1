"""Prompt variants of tiny models: what each adds, and that every picture reaches its own positions."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from harness.errors import PhaseError
from harness.models.anatomy import Anatomy, find_anatomy
from harness.models.kinds import kind_of
from harness.releases.sweep.type_verdicts import vision_language_types
from harness.releases.tiny.prompts import TinyPrompt, TinyPrompts, run_prompt, tiny_prompt, tiny_prompts
from harness.releases.tiny.tiny_model import WINDOW, tiny_model
from harness.tests.support.documented_release import expecting_upstream_failures

TYPES = vision_language_types()
VARIANTS = ("base", "two pictures", "wide picture", "long")
# Only of models that take token types.
WITHOUT_TYPES = "without token types"
# Towers of a fixed square size refuse the wide picture.
REFUSED = {"llava": {"wide picture"}, "gemma3": {"wide picture"}, "qwen2_5_vl": set()}


@cache
def prompted(model_type: str) -> tuple[Any, Anatomy, TinyPrompts]:
    model = tiny_model(model_type, TYPES[model_type])
    anatomy = find_anatomy(model)
    return model, anatomy, tiny_prompts(model, anatomy)


@pytest.mark.parametrize("model_type", REFUSED)
def test_a_model_has_a_prompt_or_a_reason_for_every_variant(model_type: str) -> None:
    _, _, prompts = prompted(model_type)
    assert set(prompts.skipped) == REFUSED[model_type]
    assert all(prompts.skipped.values())
    assert [name for name in VARIANTS if name in {*prompts, *prompts.skipped}] == list(VARIANTS)
    assert next(iter(prompts)) == "base"


@pytest.mark.parametrize("model_type", REFUSED)
def test_the_base_prompt_and_all_variants_are_reproducible(model_type: str) -> None:
    model, anatomy, prompts = prompted(model_type)
    assert_equal(prompts["base"], tiny_prompt(model, anatomy))
    for name, prompt in tiny_prompts(model, anatomy).items():
        assert_equal(prompts[name], prompt)


def assert_equal(one: TinyPrompt, other: TinyPrompt) -> None:
    assert one.inputs.keys() == other.inputs.keys()
    assert all(torch.equal(value, other.inputs[name]) for name, value in one.inputs.items())
    assert all(torch.equal(getattr(one.groups, name), getattr(other.groups, name)) for name in one.groups.__slots__)


@pytest.mark.parametrize("model_type", REFUSED)
def test_every_variant_is_padded_on_the_left_and_groups_partition_its_tokens(model_type: str) -> None:
    for prompt in prompted(model_type)[2].values():
        assert_padded_and_partitioned(prompt)


def assert_padded_and_partitioned(prompt: TinyPrompt) -> None:
    groups = prompt.groups
    first, second = groups.real.sum(1).tolist()
    assert first == groups.real.shape[1] > second
    assert bool(groups.real[1, -second:].all())
    total = groups.image.int() + groups.instruction.int() + groups.other.int()
    assert torch.equal(total, groups.real.int())
    assert bool(groups.image.any(1).all())
    assert bool(groups.instruction[:, -1].all())
    assert not bool((groups.text & (groups.image | prompt.separators)).any())


@pytest.mark.parametrize("model_type", REFUSED)
def test_two_pictures_double_the_image_tokens_with_text_between(model_type: str) -> None:
    _, _, prompts = prompted(model_type)
    one, two = (prompts[name].groups for name in ("base", "two pictures"))
    assert two.image.sum(1).tolist() == (2 * one.image.sum(1)).tolist()
    assert [len(picture_blocks(row)) for row in two.image] == [2, 2]
    first, second = picture_blocks(two.image[0])
    assert bool(two.text[0, first[-1] + 1 : second[0]].any())


def picture_blocks(image: torch.Tensor) -> list[list[int]]:
    """Return the positions of each run of image tokens in a row, bool (tokens,)."""
    positions = image.nonzero().flatten()
    gaps = (positions.diff() > 1).nonzero().flatten() + 1
    return [block.tolist() for block in positions.tensor_split(gaps)]


def test_a_wide_picture_has_fewer_rows_than_columns() -> None:
    prompt = prompted("qwen2_5_vl")[2]["wide picture"]
    rows, columns = prompt.inputs["image_grid_thw"][0, 1:].tolist()
    assert rows < columns
    assert len(prompt.inputs["pixel_values"]) == 2 * rows * columns


def test_pictures_and_prompts_cross_the_sliding_window() -> None:
    """A mask that lets the last query see beyond its window changes its attention in the sliding layers."""
    model, _, prompts = prompted("gemma3")
    text = model.config.get_text_config(decoder=True)
    assert text.sliding_window == WINDOW
    assert int(prompts["base"].groups.image[0].sum()) > WINDOW
    assert int(prompts["long"].groups.instruction.sum(1).min()) > WINDOW
    for name in ("base", "long"):
        sliding = run_prompt(model, prompts[name].inputs).logits
        text.sliding_window = 4096
        try:
            unlimited = run_prompt(model, prompts[name].inputs).logits
        finally:
            text.sliding_window = WINDOW
        assert float((sliding - unlimited).abs().max()) > 1e-3 * float(sliding.abs().max())


@pytest.mark.parametrize("model_type", REFUSED)
def test_every_picture_reaches_its_own_positions_only(model_type: str) -> None:
    assert_pictures_in_order(*prompted(model_type))


def assert_pictures_in_order(model: Any, anatomy: Anatomy, prompts: TinyPrompts) -> None:
    """Require that another first picture changes the first block of the first sample and no other image position."""
    prompt = prompts["two pictures"]
    states, others = (first_states(model, anatomy, inputs) for inputs in (prompt.inputs, other_first_picture(prompt)))
    point = next(
        point for point, (one, two) in enumerate(zip(states, others, strict=True)) if not torch.equal(one, two)
    )
    changed = ((states[point] - others[point]).abs() > 1e-4 * states[point].abs().max()).any(-1)
    block = picture_blocks(prompt.groups.image[0] | prompt.separators[0])[0]
    # Patches of two pictures may have the same code.
    assert int(changed[0, block].sum()) * 4 >= len(block)
    changed[0, block] = False
    assert not bool((changed & prompt.groups.image).any())


def other_first_picture(prompt: TinyPrompt) -> dict[str, torch.Tensor]:
    """Return the inputs with another first picture of four; pixel tensors have the pictures in the prompt's order."""
    inputs = dict(prompt.inputs)
    for name, value in inputs.items():
        if value.is_floating_point():
            pictures = value.clone()
            axis = 3 if name == "pixel_values" and value.shape[0] == 1 else 0
            flat = pictures.flatten(0, 1) if value.shape[:2] == (2, 2) else pictures.transpose(0, axis)
            first = flat[: len(flat) // 4]
            # Whole numbers are positions.
            first.copy_(torch.where(first == first.round(), first, -first))
            inputs[name] = pictures
    return inputs


def first_states(model: Any, anatomy: Anatomy, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    states: list[torch.Tensor] = []
    with anatomy.residual_points(lambda _, state: states.append(state.clone())):
        run_prompt(model, inputs)
    return states


@pytest.mark.types
@pytest.mark.parametrize("model_type", TYPES)
def test_all_types_accept_or_refuse_each_variant(model_type: str) -> None:
    if kind_of(model_type).refused:
        pytest.skip("the harness refuses this type")
    try:
        model, anatomy, prompts = prompted.__wrapped__(model_type)
    except (PhaseError, ImportError) as error:
        pytest.skip(str(error)[:200])
    assert {*prompts, *prompts.skipped} - {WITHOUT_TYPES} == set(VARIANTS)
    with expecting_upstream_failures():
        assert "long" in prompts
        for prompt in prompts.values():
            assert_padded_and_partitioned(prompt)
            output = run_prompt(model, prompt.inputs)
            logits = (getattr(output, "language_model_outputs", None) or output).logits
            assert bool(logits[:, -1].isfinite().any(-1).all())
        if "two pictures" in prompts:
            assert_pictures_in_order(model, anatomy, prompts)
