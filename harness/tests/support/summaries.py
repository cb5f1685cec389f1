"""The content of a stored summary, read directly from its files."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from harness.tests.support.case_runs import find_arrays


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    with np.load(find_arrays(path), allow_pickle=False) as stored:
        return {name: stored[name].shape for name in stored.files}


def find_names(path: Path, names: Iterable[str]) -> list[str]:
    """Return the names that occur in a baseline's JSON or, uncompressed, in its arrays."""
    with zipfile.ZipFile(find_arrays(path)) as stored:
        written = path.read_bytes() + b"".join(stored.read(member) for member in stored.namelist())
    return [name for name in names if name.encode() in written or name.encode("utf-32-le") in written]
