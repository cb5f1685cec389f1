"""Real regressions of transformers, planted into the installed release, are noticed, or there is a reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from harness.models.anatomy import find_anatomy
from harness.releases.diff.generation import check_generation
from harness.releases.diff.readings_comparison import TOLERANCE
from harness.releases.diff.release_verdict import ReleaseVerdict, TypeChange, judge_directories
from harness.releases.diff.saved_types import load_type, make_type
from harness.releases.sweep.type_verdicts import vision_language_types
from harness.releases.tiny.prompts import tiny_prompt
from harness.releases.tiny.tiny_model import tiny_model
from harness.tests.releases.faults.planted_masks import Patch, assume_prefix, compute_vision_eagerly, swap_tiles
from harness.tests.releases.faults.planted_steps import (
    forget_seconds,
    map_to_other_type,
    misplace_padded_steps,
)
from harness.tests.releases.faults.upstream_faults import STATES_FAULTS, UNNOTICED_FAULTS
from harness.tests.releases.faults.video_prompts import video_prompt

pytestmark = [
    pytest.mark.types,
    pytest.mark.skipif(not transformers.__version__.startswith("5.24."), reason="the faults patch code of 5.24"),
]
TYPES = vision_language_types()
Judge = Callable[[], TypeChange]


def save_type(model_type: str, directory: Path) -> Judge:
    """Save a type with its readings, and return a function that loads it again and judges it."""
    saved = directory / "saved"
    make_type(model_type, TYPES[model_type], saved)

    def judge() -> TypeChange:
        again = directory / "again"
        load_type(model_type, TYPES[model_type], saved, again)
        return judge_directories(saved, again)

    return judge


@pytest.mark.parametrize("name", STATES_FAULTS)
def test_a_changed_computation_is_noticed(name: str, tmp_path: Path, monkeypatch: Patch) -> None:
    fault = STATES_FAULTS[name]
    judge = save_type(fault.model_type, tmp_path)
    assert judge().verdict is ReleaseVerdict.SAME
    fault.plant(monkeypatch)
    change = judge()
    assert change.verdict is ReleaseVerdict.MOVED
    assert {move.prompt for move in change.moves} == set(fault.prompts)
    assert {move.first_point for move in change.moves} == {fault.point}
    assert fault.quantity in {move.quantity for move in change.moves}
    assert min(move.relative for move in change.moves) > 0.01


@pytest.mark.parametrize("name", UNNOTICED_FAULTS)
def test_an_unnoticed_fault_has_a_reason(name: str, tmp_path: Path, monkeypatch: Patch) -> None:
    fault = UNNOTICED_FAULTS[name]
    assert fault.reason
    judge = save_type(fault.model_type, tmp_path)
    fault.plant(monkeypatch)
    assert judge().verdict is ReleaseVerdict.SAME


def test_a_prefix_without_token_types_is_noticed(tmp_path: Path) -> None:
    """Release 5.9.0 made such a prefix causal. The installed release does so too, so the patch is the older one."""
    with pytest.MonkeyPatch.context() as older_release:
        assume_prefix(older_release)
        judge = save_type("paligemma", tmp_path)
        assert judge().verdict is ReleaseVerdict.SAME
    change = judge()
    assert change.verdict is ReleaseVerdict.MOVED
    assert [(move.prompt, move.first_point) for move in change.moves] == [("without token types", 1)]


# 31327: a wide picture gives another number of features, so the model refuses the prompt. 45358: the mapping of names
# was copied from another type. 40154: left pads were counted in one of two numbers that are added.
@pytest.mark.parametrize(
    ("model_type", "plant", "verdict", "remark"),
    [
        pytest.param("llava_next", swap_tiles, ReleaseVerdict.INPUTS, "tokens do not match", id="31327"),
        pytest.param("llava", map_to_other_type, ReleaseVerdict.UNMAPPED, "lm_head.weight", id="45358"),
        pytest.param("qwen2_5_vl", misplace_padded_steps, ReleaseVerdict.GENERATION, "cached step 1", id="40154"),
    ],
)
def test_a_fault_has_its_own_verdict(
    model_type: str,
    plant: Callable[[Patch], None],
    verdict: ReleaseVerdict,
    remark: str,
    tmp_path: Path,
    monkeypatch: Patch,
) -> None:
    judge = save_type(model_type, tmp_path)
    assert judge().verdict is ReleaseVerdict.SAME
    plant(monkeypatch)
    change = judge()
    assert change.verdict is verdict
    assert remark in change.remarks[0]


def test_missing_seconds_between_frames_are_noticed_with_a_video(monkeypatch: Patch) -> None:
    """Transformers issue 41152: generation computed the positions of a video without its frame rate."""
    model = tiny_model("qwen2_5_vl", TYPES["qwen2_5_vl"])
    prompt = video_prompt(model, find_anatomy(model))
    assert check_generation(model, prompt).step is None
    forget_seconds(monkeypatch)
    assert check_generation(model, prompt).step == 0


def test_backends_of_the_vision_tower_differ_by_rounding_in_16_bits(monkeypatch: Patch) -> None:
    """Transformers issue 35749: float32, in which tiny models compute, hides a difference that bfloat16 shows."""
    model = tiny_model("qwen2_vl", TYPES["qwen2_vl"])
    inputs = tiny_prompt(model, find_anatomy(model)).inputs

    def difference(dtype: torch.dtype) -> float:
        grids = inputs["image_grid_thw"], inputs["pixel_values"].to(dtype)
        before, after = (tower(model.to(dtype), *grids) for tower in (_vision_states, _eager_vision_states))
        return float((after - before).norm() / before.norm())

    assert difference(torch.float32) < TOLERANCE
    assert difference(torch.bfloat16) > 100 * TOLERANCE


def _vision_states(model: Any, grid: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model.model.visual(pixels, grid_thw=grid).pooler_output.float()


def _eager_vision_states(model: Any, *inputs: torch.Tensor) -> torch.Tensor:
    with pytest.MonkeyPatch.context() as patch:
        compute_vision_eagerly(patch)
        return _vision_states(model, *inputs)
