"""Small Winoground datasets in its file layouts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.tests.support.photographs import (
    encode_image,
    write_images,
    write_table,
)

FORMATS = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP"}


def make_example(number: Any, **values: Any) -> dict[str, Any]:
    return {
        "id": number,
        "image_0": f"ex_{number}_img_0",
        "image_1": f"ex_{number}_img_1",
        "caption_0": f" the dog {number} sees the  cat ",
        "caption_1": f"the cat sees the dog {number}",
        "tag": "Noun",
        **values,
    }


def write_jsonl(
    directory: Path, examples: Sequence[dict[str, Any]], suffix: str = "png", images: str = "images"
) -> Path:
    """Write the JSON lines and the images to a directory. Return the images' directory."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "examples.jsonl").write_text("\n".join(map(json.dumps, examples)) + "\n\n")
    names = [e[f"image_{side}"] for e in examples for side in (0, 1)]
    write_images(directory / images, {f"{n}.{suffix}": encode_image(n, FORMATS[suffix]) for n in names})
    return directory / images


def write_parquet(path: Path, examples: Sequence[dict[str, Any]]) -> None:
    columns = {column: [e[column] for e in examples] for column in examples[0]}
    for side in ("image_0", "image_1"):
        columns[side] = [{"bytes": encode_image(name), "path": f"{name}.png"} for name in columns[side]]
    write_table(path, columns)
