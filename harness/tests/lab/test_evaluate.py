"""Reading and judging captions, without a model."""

from __future__ import annotations

import numpy as np
import pytest

from harness.data.scenes import Scene, Thing
from harness.lab.training.tally import Tally, judge, read_caption
from harness.models.likelihood import winoground_scores

RED, BLUE = Thing("red", "circle", "small"), Thing("blue", "square", "large")
PAIR = Scene((RED, BLUE), ("left",), "gray", 0)


def test_a_caption_is_read_as_objects_and_relations() -> None:
    reading = read_caption("A red circle left of a blue square, with a green star below it.")
    assert reading.objects == ((None, "red", "circle"), (None, "blue", "square"), (None, "green", "star"))
    assert reading.relations == ("left", "below")
    assert read_caption("circle") == read_caption("A circle on a dark floor.")
    assert read_caption("").objects == ()


@pytest.mark.parametrize(
    ("caption", "colour", "shape", "relation", "exact"),
    [
        ("A small red circle left of a large blue square.", 2, 2, 1, 1),
        ("A small red circle above a large blue square.", 2, 2, 0, 0),
        ("A large blue square left of a small red circle.", 0, 0, 0, 0),
        ("A small red ring left of a large blue square.", 2, 1, 0, 0),
        ("A small blue circle left of a large red square.", 0, 2, 0, 0),
        ("A small red circle.", 1, 1, 0, 0),
        ("left left left", 0, 0, 0, 0),
    ],
)
def test_only_exact_attributes_count_as_right(caption: str, colour: int, shape: int, relation: int, exact: int) -> None:
    tally = Tally()
    judge(PAIR, caption, tally)
    assert [tally.right[f"{name}/all"] for name in ("colour", "shape", "relation", "exact")] == [
        colour,
        shape,
        relation,
        exact,
    ]
    assert tally.total["colour/all"] == 2
    assert tally.total["relation/all"] == tally.total["relation word/all"] == 1
    assert tally.right["relation word/all"] == ("left" in caption and caption.count("left") == 1)


def test_winoground_scores_of_a_pair() -> None:
    """Rows are images, columns captions; the cases: all right, only text right, only image right, all equal."""
    tables = [[[2.0, 1.0], [1.0, 2.0]], [[9.0, 8.0], [1.0, 2.0]], [[9.0, 1.0], [8.0, 2.0]], [[1.0, 1.0], [1.0, 1.0]]]
    scores = {name: right.tolist() for name, right in winoground_scores(np.array(tables)).items()}
    assert scores == {
        "text": [True, True, False, False],
        "image": [True, False, True, False],
        "group": [True, False, False, False],
    }
