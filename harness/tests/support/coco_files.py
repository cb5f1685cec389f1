"""Small COCO Captions directories in the official layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.data.datasets import find_dataset
from harness.data.sample import DataError, Sample, Source
from harness.tests.support.photographs import write_coco_layout


def draw(directory: Path, n: int = 100, seed: int = 0) -> tuple[list[Sample], dict[str, str]]:
    source = Source(directory)
    return list(find_dataset("coco-captions").draw(n, seed, source)), source.left_out


def image_file_name(part: str, number: int) -> str:
    return f"COCO_{part}_{number:012d}.jpg" if part.endswith("2014") else f"{number:012d}.jpg"


def write_split(directory: Path, part: str, numbers: range = range(1, 9)) -> Path:
    images = {k: image_file_name(part, k) for k in numbers}
    return write_coco_layout(
        directory, part, images, [(k, f"{part} {k} number {j}") for j in range(2) for k in numbers]
    )


def draw_error(directory: Path) -> str:
    with pytest.raises(DataError) as error:
        draw(directory)
    assert "\n" not in str(error.value)
    return str(error.value)
