"""Hostile datasets in the official layouts: write them, draw from them, and check the error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.data.datasets import find_dataset
from harness.data.sample import DataError, Sample, Source
from harness.tests.support.photographs import encode_image, write_coco_layout, write_images

ESCAPE = "\x1b]0;owned\x07\x1b[2J"


def draw(dataset: str, directory: Path) -> tuple[list[Sample], dict[str, str]]:
    source = Source(directory)
    return list(find_dataset(dataset).draw(100, 0, source)), source.left_out


def draw_error(dataset: str, directory: Path) -> str:
    with pytest.raises(DataError) as caught:
        draw(dataset, directory)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 1000
    return message


def write_coco(directory: Path, images: list[dict[str, Any]]) -> None:
    """Write COCO's layout with one valid image in addition to `images`."""
    folder = write_coco_layout(directory, "val2017", {7: "7.jpg"}, [(7, "a red circle")])
    write_images(folder.parent, {"outside.jpg": encode_image("outside", "JPEG")})
    path = directory / "annotations" / "captions_val2017.json"
    content = json.loads(path.read_text())
    content["images"] += images
    content["annotations"] += [{"image_id": image["id"], "caption": "a blue square"} for image in images]
    path.write_text(json.dumps(content))
