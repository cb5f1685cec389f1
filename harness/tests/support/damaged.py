"""Damaged copies of a file: flipped bits, truncations and an extra byte."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np


def damaged_copies(content: bytes, flips: int, cuts: int) -> Iterator[bytes]:
    """Yield copies with one flipped bit, truncated copies and one with an extra byte.

    Args:
        content: the original bytes.
        flips: number of random positions of a flipped bit; every position if the file is shorter.
        cuts: number of random lengths of a truncated copy; every length if the file is shorter.
    """
    rng = np.random.default_rng(0)
    size = len(content)
    for position in range(size) if flips >= size else rng.integers(size, size=flips):
        yield content[:position] + bytes([content[position] ^ 1 << int(rng.integers(8))]) + content[position + 1 :]
    for length in range(size) if cuts >= size else rng.integers(size, size=cuts):
        yield content[:length]
    yield content + b"\0"


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file by a new one, because some file systems wait for the disk when a file is rewritten."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)
