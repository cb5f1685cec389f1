"""Variations of a run that change nothing in the model: threads, batches, order, processes and attention backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.data.sample import Dataset, Sample, Source

MODELS = ("scenes-llava", "scenes-instructblip")
THREADS, PROCESSES, ATTENTION, LARGEST_BATCH = (1, 2), (1, 2), ("sdpa", "eager"), 16
_LARGEST_ORDER = 1_000_000


@dataclass(frozen=True, slots=True)
class Variation:
    """The settings of one run: each of the `processes` has `threads`; `order` is the seed of the samples' order."""

    model: str
    threads: int
    batch_size: int
    order: int
    processes: int
    attention: str

    def __str__(self) -> str:
        return (
            f"{self.model}, {self.processes} process{'es' * (self.processes > 1)} of {self.threads} "
            f"thread{'s' * (self.threads > 1)}, batch size {self.batch_size}, order {self.order}, {self.attention}"
        )


def draw_variations(runs: int, seed: int) -> list[Variation]:
    """Return the variations of a plan; the first are the same for every number of runs. Models alternate."""
    rng = np.random.default_rng(seed)
    return [
        Variation(
            model=MODELS[index % len(MODELS)],
            threads=int(rng.choice(THREADS)),
            batch_size=int(rng.integers(1, LARGEST_BATCH + 1)),
            order=int(rng.integers(_LARGEST_ORDER)),
            processes=int(rng.choice(PROCESSES)),
            attention=str(rng.choice(ATTENTION)),
        )
        for index in range(runs)
    ]


def reordered(data: Dataset, order: int) -> Dataset:
    """Return the dataset with its drawn samples in a random order of that seed."""

    def draw(n: int, seed: int, source: Source) -> Sequence[Sample]:
        samples = data.draw(n, seed, source)
        return [samples[index] for index in np.random.default_rng(order).permutation(len(samples))]

    return replace(data, draw=draw)
