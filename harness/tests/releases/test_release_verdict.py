"""Verdicts on a type between two releases, from the reports and readings of both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.releases.diff.generation import GenerationCheck
from harness.releases.diff.release_verdict import ALARMS, ReleaseVerdict, TypeChange, changed_defaults, judge_type
from harness.releases.diff.type_report import TypeReport, TypeState
from harness.releases.processors.processor_readings import ProcessorReadings


def readings(shift: float = 0.0, tokens: int = 4) -> dict[str, Any]:
    states = np.ones((3, 2, tokens, 8))
    states[1:] += shift
    return {
        "base/states": states,
        "base/image": np.zeros((2, tokens), dtype=bool),
        "base/similarity": np.full((2, 3, 5), 0.5 + shift),
        "base/logits": np.ones((2, 9)),
    }


def judge(before: TypeReport | None = None, after: TypeReport | None = None, **arrays: dict[str, Any]) -> TypeChange:
    same = {"made": readings(), "saved": readings(), "loaded": readings()}
    return judge_type(before or TypeReport("t"), after or TypeReport("t"), **same | arrays)


def test_equal_readings_are_the_same() -> None:
    change = judge()
    assert change.verdict is ReleaseVerdict.SAME
    assert change.record() == {
        "verdict": "same",
        "first_point": None,
        "largest": 0.0,
        "relative": 0.0,
        "quantity": None,
        "prompts": {},
        "processor": "not read",
        "remarks": [],
    }


def test_other_states_have_moved_from_a_point() -> None:
    change = judge(loaded=readings(0.2))
    assert change.verdict is ReleaseVerdict.MOVED
    record = change.record()
    assert (record["first_point"], record["quantity"]) == (1, "states")
    assert record["largest"] == pytest.approx(0.2)


def test_rounding_is_a_remark_and_no_move() -> None:
    loaded = readings()
    loaded["base/states"][2] += 3e-5
    change = judge(loaded=loaded)
    assert (change.verdict, list(change.moves)) == (ReleaseVerdict.SAME, [])
    assert change.remarks == ["states differ by 3.0e-05 from point 2, as the same operations in another order do"]


def test_weights_without_a_value_are_named_only_if_they_matter() -> None:
    lost = TypeReport("t", missing=[f"layer.{index}" for index in range(5)])
    change = judge(after=lost, loaded=readings(0.2))
    assert change.verdict is ReleaseVerdict.UNMAPPED
    assert change.remarks == ["layer.0, layer.1, layer.2 and 2 more not in the saved file"]
    assert judge(after=lost).verdict is ReleaseVerdict.SAME


def test_a_release_that_loads_something_else_than_it_saved_is_named_before_a_move() -> None:
    change = judge(saved=readings(0.1), loaded=readings())
    assert change.verdict is ReleaseVerdict.ROUND_TRIP
    assert change.verdict not in ALARMS


def test_refused_inputs_are_a_verdict_of_their_own_and_a_remark_on_a_move() -> None:
    other = TypeReport("t", inputs={"base": "now needed: x"})
    assert judge(after=other).verdict is ReleaseVerdict.INPUTS
    moved = judge(after=other, loaded=readings(0.2))
    assert moved.verdict is ReleaseVerdict.MOVED
    assert moved.remarks == ["inputs changed: now needed: x"]


def test_a_move_that_new_token_types_undo_is_a_change_of_the_inputs() -> None:
    """The newer release accepts the saved inputs, but computes other positions from them."""
    change = judge(loaded=readings(0.2), completed=readings())
    assert change.verdict is ReleaseVerdict.INPUTS
    assert "move from point 1 and no error is raised (similarity by 0.2)" in change.remarks[0]
    assert change.moves == []
    still = judge(loaded=readings(0.2), completed=readings(0.1))
    assert still.verdict is ReleaseVerdict.MOVED
    assert still.largest == pytest.approx(0.1)


def test_a_processor_that_cannot_be_loaded_any_more_has_changed() -> None:
    processor = ProcessorReadings("P", "I", "pil", {})
    before = TypeReport("t", processor=processor)
    lost = judge(before, TypeReport("t", unread="no such class"))
    assert lost.verdict is ReleaseVerdict.PROCESSOR
    assert "no such class" in lost.remarks[0]
    refused = judge(TypeReport("t", TypeState.REFUSED, "why", processor=processor), TypeReport("t", unread="x"))
    assert refused.verdict is ReleaseVerdict.PROCESSOR


def test_readings_of_another_shape_cannot_be_compared() -> None:
    change = judge(loaded=readings(tokens=5))
    assert change.verdict is ReleaseVerdict.INPUTS
    assert "shape" in change.remarks[0]


def test_generation_counts_only_if_the_older_release_was_right() -> None:
    right, wrong = GenerationCheck(1e-6, None, ""), GenerationCheck(0.3, 1, "")
    fresh = judge(TypeReport("t", generation=right), TypeReport("t", generation=wrong))
    assert fresh.verdict is ReleaseVerdict.GENERATION
    assert "cached step 1" in fresh.remarks[0]
    both = judge(TypeReport("t", generation=wrong), TypeReport("t", generation=wrong))
    assert both.verdict is ReleaseVerdict.SAME


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (None, TypeReport("t"), ReleaseVerdict.NEW),
        (TypeReport("t"), TypeReport("t", TypeState.GONE), ReleaseVerdict.GONE),
        (TypeReport("t", TypeState.REFUSED, "why"), TypeReport("t"), ReleaseVerdict.REFUSED),
        (TypeReport("t", TypeState.FAILED, "why"), TypeReport("t"), ReleaseVerdict.FAILED_BEFORE),
        (TypeReport("t"), TypeReport("t", TypeState.FAILED, "why"), ReleaseVerdict.FAILED),
        (TypeReport("t"), TypeReport("t", TypeState.REFUSED, "why"), ReleaseVerdict.REFUSED),
    ],
)
def test_a_type_without_two_readings_has_a_verdict_with_the_reason(
    before: TypeReport | None, after: TypeReport, verdict: ReleaseVerdict
) -> None:
    change = judge_type(before, after, made={}, saved={}, loaded={})
    assert change.verdict is verdict
    assert list(change.remarks) == (["why"] if "why" in (after.reason, before.reason if before else "") else [])
    assert (verdict in ALARMS) is (verdict is ReleaseVerdict.FAILED)


def test_changed_defaults_are_named_by_path_and_new_fields_are_not() -> None:
    before = {"depth": 2, "vision": {"size": 3, "model_type": "a"}, "old": 1, "transformers_version": "5.0"}
    after = {"depth": 2, "vision": {"size": 4, "model_type": "b"}, "new": 1, "transformers_version": "5.1"}
    assert changed_defaults(before, after) == ["vision.size 3 -> 4"]
    change = judge(TypeReport("t", defaults=before), TypeReport("t", defaults=after))
    assert (change.verdict, change.remarks) == (ReleaseVerdict.CONFIGURATION, ["vision.size 3 -> 4"])
