"""Seeds of simulated draws: a function of what is drawn, so that neither order nor number of processes matters."""

from __future__ import annotations

import zlib

import numpy as np


def seed_of(seed: int, *place: str | int) -> int:
    """Returns the seed of one draw: of the run's `seed` and the words and numbers that say which draw it is."""
    key = [zlib.crc32(part.encode()) if isinstance(part, str) else int(part) for part in place]
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint64)[0])
