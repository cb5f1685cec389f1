"""Comparison of two releases' readings: the first point that moved, what moved there, and by how much."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.releases.diff.readings_comparison import TOLERANCE, compare_readings, is_same, other_shapes

POINTS, ROWS, TOKENS, WIDTH = 5, 2, 6, 8


def readings(prompt: str = "base") -> dict[str, Any]:
    draw = np.random.default_rng(3)
    image = np.zeros((ROWS, TOKENS), dtype=bool)
    image[:, 1:3] = True
    arrays = {
        "states": draw.normal(size=(POINTS, ROWS, TOKENS, WIDTH)),
        "image": image,
        "similarity": draw.uniform(-1, 1, size=(ROWS, POINTS, 5)),
        "weight_shares": draw.uniform(size=(ROWS, POINTS - 1, 4)),
        "norm_shares": draw.uniform(size=(ROWS, POINTS - 1, 4)),
        "logits": draw.normal(size=(ROWS, 11)),
    }
    return {
        f"{prompt}/{name}": value if name == "image" else value.astype(np.float32) for name, value in arrays.items()
    }


def moved(name: str, index: Any, by: float = 0.1, prompt: str = "base") -> dict[str, Any]:
    arrays = readings(prompt)
    arrays[f"{prompt}/{name}"][index] += by
    return arrays


def only_moved(name: str, index: Any, by: float = 0.1) -> dict[str, Any]:
    return {f"base/{name}": moved(name, index, by)[f"base/{name}"]}


def test_equal_readings_and_rounding_do_not_move() -> None:
    before = readings()
    assert compare_readings(before, readings()) == []
    rounded = moved("states", np.s_[:], 1e-7) | {"base/logits": before["base/logits"] * np.float32(1 + 1e-7)}
    assert is_same(before, rounded)


@given(point=st.integers(0, POINTS - 1), row=st.integers(0, ROWS - 1), token=st.integers(0, TOKENS - 1))
def test_the_first_moved_point_is_the_earliest_of_any_token(point: int, row: int, token: int) -> None:
    after = moved("states", np.s_[point:, row, token])
    (move,) = compare_readings(readings(), after)
    assert move.first_point == point
    states = readings()["base/states"].astype(float)
    literal = max(
        float(np.linalg.norm(after["base/states"][p, row, token] - states[p, row, token]))
        / float(np.linalg.norm(states[p, row, token]))
        for p in range(POINTS)
    )
    assert move.relative == pytest.approx(literal, rel=1e-5)


@pytest.mark.parametrize(
    ("after", "quantity", "point"),
    [
        (moved("states", np.s_[:, 0, 1]), "vision features", 0),
        (moved("states", np.s_[:, 0, 4]), "text embeddings", 0),
        (moved("states", np.s_[2:, 0, 4]), "states", 2),
        (moved("states", np.s_[2:]) | only_moved("weight_shares", np.s_[:, 1]), "attention", 2),
        (moved("states", np.s_[2:]) | only_moved("norm_shares", np.s_[:, 0]), "states", 2),
        (moved("logits", np.s_[1]), "logits", POINTS),
    ],
    ids=["image", "text", "later", "attention", "attention of another layer", "logits"],
)  # fmt: skip
def test_the_quantity_that_differs_first_is_named(after: dict[str, Any], quantity: str, point: int) -> None:
    (move,) = compare_readings(readings(), after)
    assert (move.quantity, move.first_point) == (quantity, point)


def test_the_size_is_the_largest_difference_of_a_similarity() -> None:
    after = moved("states", np.s_[3:]) | only_moved("similarity", (1, 4, 2), -0.25)
    (move,) = compare_readings(readings(), after)
    assert move.largest == pytest.approx(0.25, rel=1e-5)


def test_a_state_that_is_no_number_has_moved() -> None:
    (move,) = compare_readings(readings(), moved("states", np.s_[4, 0, 0], np.nan))
    assert move.first_point == 4
    assert move.relative == np.inf


def test_moves_are_sorted_by_their_point_and_a_missing_prompt_is_ignored() -> None:
    before = readings("base") | readings("long") | readings("wide picture")
    after = moved("states", np.s_[3:], prompt="base") | moved("states", np.s_[1:], prompt="long")
    assert [move.prompt for move in compare_readings(before, after)] == ["long", "base"]


def test_a_prompt_with_other_shapes_is_named_and_the_others_are_compared() -> None:
    before = readings() | readings("long")
    after = moved("states", np.s_[2:], prompt="long") | readings()
    after["base/states"] = np.zeros((POINTS, ROWS, TOKENS + 1, WIDTH))
    assert other_shapes(before, after) == [
        "states of the prompt 'base' have another shape: (5, 2, 6, 8) -> (5, 2, 7, 8)"
    ]
    assert [move.prompt for move in compare_readings(before, after)] == ["long"]
    assert not is_same(readings(), after)


def test_the_tolerance_is_the_documented_one() -> None:
    assert TOLERANCE == 1e-5
    states = readings()["base/states"]
    for factor, expected in ((1 + 5e-6, 0), (1 + 2e-5, 1)):
        after = readings() | {"base/states": states.astype(np.float64) * factor}
        assert len(compare_readings(readings(), after)) == expected


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (moved("states", np.s_[3:], 1e-5), True),
        (moved("states", np.s_[3:], 1e-2), False),
        (moved("states", np.s_[3:], 1e-5) | only_moved("similarity", (0, 0, 0), 1e-5), False),
        (moved("states", np.s_[3:], 1e-5) | only_moved("logits", np.s_[1], 1e-2), False),
        (moved("logits", np.s_[1], 1e-5), True),
    ],
)
def test_small_differences_of_all_readings_are_rounding(after: dict[str, Any], *, expected: bool) -> None:
    moves = compare_readings(readings(), after)
    assert [move.is_rounding for move in moves] == [expected]
    assert is_same(readings(), after) is expected
