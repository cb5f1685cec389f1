"""Parquet tables of captions with arbitrary columns and options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.data.datasets import find_dataset
from harness.data.sample import DataError, Sample, Source
from harness.tests.support.photographs import encode_image

IMAGE = encode_image("a")
ROWS = 777
HUGE = "x" * 1_000_000


def draw(directory: Path, n: int = 100, dataset: str = "coco-captions") -> tuple[list[Sample], dict[str, str]]:
    source = Source(directory)
    return list(find_dataset(dataset).draw(n, 0, source)), source.left_out


def draw_error(directory: Path, n: int = 100, dataset: str = "coco-captions") -> str:
    with pytest.raises(DataError) as caught:
        draw(directory, n, dataset)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 1000
    return message


def write_captions(directory: Path, rows: int = 2, columns: dict[str, Any] | None = None, **options: Any) -> None:
    """Write a table of COCO captions with some columns replaced."""
    import pyarrow
    import pyarrow.parquet

    table = {
        "image": pyarrow.array([IMAGE] * rows),
        "answer": pyarrow.array([["a dog"]] * rows),
        "id": pyarrow.array([str(row) for row in range(rows)]),
    }
    pyarrow.parquet.write_table(pyarrow.table(table | (columns or {})), directory / "a.parquet", **options)
