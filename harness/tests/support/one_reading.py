"""One reading of every kind of array, kept and read in its own process: python -m harness.tests.support.one_reading.

Imports no torch, so that several such processes start at once in a second.
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


def open_store(cache: Path, told: list[str] | None = None, key: Any = KEY) -> ReadingCache:
    """The store of a cache; what it says is appended to `told`."""
    return ReadingCache(cache, key, WITNESS, 1e-6, (told if told is not None else []).append)


def is_stored_row(found: Any) -> bool:
    """Whether a row that was read is the one that was kept, bit for bit."""
    return found.keys() == ROW.keys() and all(
        (found[name].dtype, found[name].shape, found[name].tobytes()) == (value.dtype, value.shape, value.tobytes())
        for name, value in ROW.items()
    )


def hammer(cache: Path) -> list[str]:
    """Read and writes the same readings over and over; none that is there may be another than was kept."""
    told: list[str] = []
    store = open_store(cache, told)
    for _ in range(40):
        for name in NAMES:
            row = store.read_one(name)
            assert row is None or is_stored_row(row)
            store.write([name], [ROW])
    return told


def write_beyond_limit(cache: Path) -> list[str]:
    """Keep readings although the kernel lets no file grow beyond a thousand bytes."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    told: list[str] = []
    store = open_store(cache, told)
    store.write(NAMES, [ROW] * len(NAMES))
    store.close()
    return told


if __name__ == "__main__":
    print(*{"hammer": hammer, "refused": write_beyond_limit}[sys.argv[1]](Path(sys.argv[2])), sep="\n")
