"""How the cost of the extras grows: the exponents of tokens and layers, by least squares in logarithms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.lab.cost.contestants import PLAIN
from harness.lab.cost.results import CellResult

FloatArray = NDArray[np.float64]
_DRAWS = 1000
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Growth:
    """extra ~ tokens^a x layers^b: the exponents with their intervals, or None where only one value was measured.

    Of `cells` cells; `dropped` others had no extra above zero, so that there is no logarithm of it.
    """

    tokens: tuple[float, Interval] | None
    layers: tuple[float, Interval] | None
    cells: int
    dropped: int


def extras(result: CellResult, contestant: str) -> FloatArray:
    """Seconds beyond the plain pass of the same round, (rounds,), of the rounds that the contestant ran in."""
    pairs = zip(result.times.get(contestant, ()), result.times[PLAIN], strict=False)
    return np.array([mine - plain for mine, plain in pairs if mine is not None and plain is not None], dtype=np.float64)


def growth(results: Sequence[CellResult], contestant: str, confidence: float = 0.95, seed: int = 0) -> Growth | None:
    """The exponents of the median extra over cells of one topology, with percentile intervals of a bootstrap.

    The bootstrap draws the rounds of every cell anew. Returns None where too few cells have an extra above zero.

    Args:
        results: cells of different numbers of tokens and layers.
        contestant: whose extra.
        confidence: of the intervals.
        seed: of the bootstrap.
    """
    rounds = [extras(result, contestant) for result in results]
    used = [at for at, found in enumerate(rounds) if len(found) and np.median(found) > 0.0]
    sizes = np.log([[results[at].cell.tokens, results[at].cell.layers] for at in used]).reshape(-1, 2)
    varied = [column for column in range(2) if len(np.unique(sizes[:, column])) > 1]
    if not varied or len(used) < len(varied) + 1:
        return None
    design = np.column_stack([np.ones(len(used)), sizes[:, varied]])
    fitted = _exponents(design, np.array([np.median(rounds[at]) for at in used]))
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(_DRAWS):
        medians = np.array([np.median(rng.choice(rounds[at], len(rounds[at]))) for at in used])
        kept = medians > 0.0
        if np.linalg.matrix_rank(design[kept]) == design.shape[1]:
            draws.append(_exponents(design[kept], medians[kept]))
    tail = 100 * (1.0 - confidence) / 2.0
    low, high = np.percentile(draws, [tail, 100 - tail], axis=0)
    found: list[Any] = [None, None]
    for at, column in enumerate(varied):
        found[column] = float(fitted[at]), (float(low[at]), float(high[at]))
    return Growth(found[0], found[1], len(used), len(results) - len(used))


def _exponents(design: FloatArray, extra: FloatArray) -> FloatArray:
    solution = np.linalg.lstsq(design, np.log(extra), rcond=None)[0]
    return np.asarray(solution[1:], dtype=np.float64)
