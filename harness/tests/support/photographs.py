"""Random images, and the dataset layouts that contain them."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

REAL_DATA = os.environ.get("VLM_PHASE_TEST_DATA")
needs_pyarrow = pytest.mark.skipif(
    importlib.util.find_spec("pyarrow") is None, reason="parquet needs pyarrow: pip install -e '.[hub]'"
)
needs_real_data = pytest.mark.skipif(
    REAL_DATA is None, reason="no real photographs: set VLM_PHASE_TEST_DATA to a directory with coco/ and winoground/"
)


def find_real_data(name: str) -> Path:
    """Return the directory with the real data of that name."""
    assert REAL_DATA is not None
    return Path(REAL_DATA) / name


def random_pixels(name: str, side: int = 24) -> np.ndarray:
    """Return 8-bit values (side, side, 3) that depend only on the name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.integers(0, 256, (side, side, 3), dtype=np.uint8)


def encode_image(name: str, kind: str = "PNG", mode: str = "RGB") -> bytes:
    """Return the image of that name in a file format."""
    file = io.BytesIO()
    Image.fromarray(random_pixels(name)).convert(mode).save(file, kind)
    return file.getvalue()


def write_images(folder: Path, contents: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)


def write_coco_layout(
    directory: Path, part: str, images: Mapping[int, str], captions: Sequence[tuple[int, str]], folder: bool = True
) -> Path:
    """Write COCO's layout with a JPEG for each image (number: file name). Return the images' directory."""
    notes = {
        "images": [{"id": number, "file_name": name} for number, name in images.items()],
        "annotations": [{"id": k, "image_id": i, "caption": text} for k, (i, text) in enumerate(captions)],
    }
    (directory / "annotations").mkdir(parents=True, exist_ok=True)
    (directory / "annotations" / f"captions_{part}.json").write_text(json.dumps(notes))
    if folder:
        write_images(directory / part, {n: encode_image(n, "JPEG") for n in images.values()})
    return directory / part


def write_table(path: Path, columns: dict[str, list[Any]], rows_in_group: int = 3) -> None:
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=rows_in_group)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG file with its checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


class MemoryFile:
    """A file in memory."""

    name = "held"

    def __init__(self, content: bytes) -> None:
        self.content = content

    def read_bytes(self) -> bytes:
        return self.content
