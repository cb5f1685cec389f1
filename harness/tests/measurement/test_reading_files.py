"""Rows with the same fields and shapes are stacked into one file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.measurement.reading_files import alike, packed, unpacked
from harness.tests.support.one_reading import ROW, is_stored_row, open_store

OTHERS = {"lens-block": {"block": np.arange(3)}, "longer": {"block": np.arange(4)}, "list": {"block": [0, 1, 2]}}


def test_rows_are_grouped_by_fields_and_shapes() -> None:
    rows = {"first": ROW, **OTHERS, "last": ROW}
    groups = [[*group] for group in alike(rows.items())]
    assert groups == [["first", "last"], ["lens-block", "list"], ["longer"]]


def test_stacked_rows_are_unpacked_exactly() -> None:
    (group,) = alike([("first", ROW), ("last", ROW)])
    content = bytes(packed(group, np.array([0.5]), "here"))
    rows, witness = unpacked(content, "here")
    assert witness.tolist() == [0.5]
    assert [*rows] == ["first", "last"]
    assert all(map(is_stored_row, rows.values()))


def test_rows_of_one_batch_that_differ_are_read_by_name(tmp_path: Path) -> None:
    rows = {"first": ROW, **OTHERS, "last": ROW}
    open_store(tmp_path).write([*rows], [*rows.values()])
    assert len([*tmp_path.rglob("*.npz")]) == 3
    stored = open_store(tmp_path).read([*rows])
    assert stored is not None
    for row, expected in zip(stored, rows.values(), strict=True):
        assert is_stored_row(row) if expected is ROW else np.array_equal(row["block"], expected["block"])
