"""A reading with every kind of array, for processes that share a cache: python -m harness.tests.support.one_reading.

The module does not import torch, so that several such processes start within a second.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from harness.measurement.reading_cache import ReadingCache

KEY = {"weights": "0123", "environment": {"device": "cpu"}, "policies": ["exact"], "batch size": 2}
WITNESS = np.linspace(0, 1, 5)
ROW: dict[str, Any] = {
    "similarity": np.arange(6, dtype=np.float32).reshape(3, 2) / 7,
    "hits": np.arange(4).reshape(2, 2),
    "agreement": np.array([True, False]),
    "none": np.zeros((0, 3)),
    "gaps": np.array([np.nan, -0.0, np.inf]),
    "tokens": np.array("a hash of tokens"),
}
NAMES = [str(number) for number in range(8)]


def open_store(cache: Path, lines: list[str] | None = None, key: Any = KEY) -> ReadingCache:
    """Return the store of a cache. Its messages are appended to `lines`."""
    return ReadingCache(cache, key, WITNESS, 1e-6, (lines if lines is not None else []).append)


def is_stored_row(row: Any) -> bool:
    """Return True if a row equals the stored `ROW` bit for bit."""
    return row.keys() == ROW.keys() and all(
        (row[name].dtype, row[name].shape, row[name].tobytes()) == (value.dtype, value.shape, value.tobytes())
        for name, value in ROW.items()
    )


def hammer(cache: Path) -> list[str]:
    """Read and write the same readings repeatedly, check each one that is present, and return the messages."""
    lines: list[str] = []
    store = open_store(cache, lines)
    for _ in range(40):
        for name in NAMES:
            row = store.read_one(name)
            assert row is None or is_stored_row(row)
            store.write([name], [ROW])
    return lines


def write_beyond_limit(cache: Path) -> list[str]:
    """Write readings while the kernel limits files to 1000 bytes, and return the messages."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    lines: list[str] = []
    store = open_store(cache, lines)
    store.write(NAMES, [ROW] * len(NAMES))
    store.close()
    return lines


if __name__ == "__main__":
    print(*{"hammer": hammer, "refused": write_beyond_limit}[sys.argv[1]](Path(sys.argv[2])), sep="\n")
