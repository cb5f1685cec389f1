"""The targets that the cost of measuring has to meet, compared with the measured values of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from harness.analysis.curves import FloatArray
from harness.analysis.timing import CONFIDENCE, log_ratios, median_of_few
from harness.lab.cost.contestants import ATTENTION, EVERYTHING, PLAIN
from harness.lab.cost.cost_results import FULL_WIDTH, PAIR, SMALL_KIND, CellResult, CostRun

#: Times plain, on a CPU and on a GPU.
ATTENTION_RATIO = {"cpu": 1.10, "cuda": 1.05}
EVERYTHING_RATIO = {"cpu": 1.5, "cuda": 1.25}
EXTRA_MEMORY = 0.02
OUTSIDE = 0.15
# Linear, within what a fit over less than two decades can tell.
EXPONENT = 1.1
_DRAWS = 1000

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Ratio:
    """A contestant's time over plain's: the median of the rounds, its interval, what that covers, and the rounds."""

    median: float
    interval: Interval
    covered: float
    n: int


@dataclass(frozen=True, slots=True)
class Growth:
    """extra ~ tokens^a x layers^b: the exponents with their intervals, or None where only one value was measured.

    Of `cells` cells; `dropped` others had no extra above zero, so that there is no logarithm of it.
    """

    tokens: tuple[float, Interval] | None
    layers: tuple[float, Interval] | None
    cells: int
    dropped: int


@dataclass(frozen=True, slots=True)
class Target:
    """An upper limit with the measured value; `form` prints a number of it, `basis` is the basis of the interval."""

    asked: str
    where: str
    limit: float
    measured: float
    interval: Interval | None
    form: Callable[[float], str]
    basis: str = "exact"

    @property
    def verdict(self) -> str:
        """Met or missed by how much; not decided where the limit lies inside the interval."""
        low, high = self.interval or (self.measured, self.measured)
        if high <= self.limit:
            return "met"
        missed = f"missed by {self.form(self.measured - self.limit)}"
        if low > self.limit:
            return f"**{missed}**"
        return f"{'met' if self.measured <= self.limit else missed}, but the interval holds the target"


def ratio(result: CellResult, contestant: str) -> Ratio | None:
    """Return the contestant's time over that of the plain pass of the same round; None where it did not run."""
    seconds = _seconds(result, contestant)
    if not len(seconds):
        return None
    median, interval, covered = median_of_few(log_ratios(*seconds.T))
    low, high = np.exp(interval)
    return Ratio(float(np.exp(median)), (float(low), float(high)), covered, len(seconds))


def extra_memory(result: CellResult, contestant: str, *, weights: bool) -> float | None:
    """Return the extra peak of a contestant as a share of the plain pass's peak, with the weights or without them."""
    if contestant not in result.peaks or PLAIN not in result.peaks:
        return None
    plain = result.peaks[PLAIN]
    return (result.peaks[contestant] - plain) / (plain + (result.weights if weights else 0))


def growth(results: Sequence[CellResult], contestant: str) -> Growth | None:
    """Fit the median extra seconds over cells of one topology, with 95 % percentile intervals of a bootstrap.

    Least squares in logarithms; the bootstrap draws the rounds of every cell anew.

    Args:
        results: cells of different numbers of tokens and layers.
        contestant: whose seconds beyond the plain pass of the same round are fitted.

    Returns:
        The exponents; None where too few cells have an extra above zero.
    """
    every = [(result.cell, np.subtract(*_seconds(result, contestant).T)) for result in results]
    used = [(cell, extra) for cell, extra in every if len(extra) and np.median(extra) > 0.0]
    sizes = np.log([[cell.tokens, cell.layers] for cell, _ in used]).reshape(-1, 2)
    varied = [column for column in range(2) if len(np.unique(sizes[:, column])) > 1]
    if not varied or len(used) < len(varied) + 1:
        return None
    design = np.column_stack([np.ones(len(used)), sizes[:, varied]])
    fitted = _exponents(design, np.array([np.median(extra) for _, extra in used]))
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(_DRAWS):
        medians = np.array([np.median(rng.choice(extra, len(extra))) for _, extra in used])
        kept = medians > 0.0
        if np.linalg.matrix_rank(design[kept]) == design.shape[1]:
            draws.append(_exponents(design[kept], medians[kept]))
    tail = 100 * (1.0 - CONFIDENCE) / 2.0
    low, high = np.percentile(draws, [tail, 100 - tail], axis=0)
    exponents = {column: (float(fitted[at]), (float(low[at]), float(high[at]))) for at, column in enumerate(varied)}
    return Growth(exponents.get(0), exponents.get(1), len(used), len(results) - len(used))


def targets(run: CostRun) -> Iterator[Target]:
    """Yield every target that the run has cells for."""
    full, small, pairs = (
        [result for result in run.cells if result.cell.kind == kind] for kind in (FULL_WIDTH, SMALL_KIND, PAIR)
    )
    # Where the published widths were not measured, the deepest of the small topology stand in for them.
    deepest = max((result.cell.layers for result in small), default=0)
    topology = full or [result for result in small if result.cell.layers == deepest]
    yield from _ratio_targets(topology, ATTENTION, ATTENTION_RATIO[run.device])
    yield from _ratio_targets(pairs if run.device == "cpu" else full, EVERYTHING, EVERYTHING_RATIO[run.device])
    for where, results in (("", topology), ("worst: ", run.cells)):
        for weights in (True, False):
            yield from _memory_target(results, where, weights=weights)
    for contestant in (ATTENTION, EVERYTHING):
        yield from _growth_targets(growth(small, contestant), contestant)
    for outside in run.outside:
        where = f"{outside.label}, {outside.samples} samples"
        yield Target("time outside the model's forward passes", where, OUTSIDE, outside.share, None, percent, "one run")


def percent(share: float) -> str:
    """Return a share as a percentage, with the digits that it needs."""
    return f"{share:.2%}" if abs(share) < 0.1 else f"{share:.1%}"


def _seconds(result: CellResult, contestant: str) -> FloatArray:
    """Return the seconds (rounds, 2) of a contestant and of plain in the rounds that both ran in."""
    rounds = zip(result.times.get(contestant, ()), result.times[PLAIN], strict=False)
    return np.array([pair for pair in rounds if None not in pair], dtype=np.float64).reshape(-1, 2)


def _exponents(design: FloatArray, extra: FloatArray) -> FloatArray:
    solution = np.linalg.lstsq(design, np.log(extra), rcond=None)[0]
    return np.asarray(solution[1:], dtype=np.float64)


def _ratio_targets(results: Sequence[CellResult], contestant: str, limit: float) -> Iterator[Target]:
    for result in results:
        measured = ratio(result, contestant)
        if measured is not None:
            asked, basis = f"time of {contestant}, x plain", f"{measured.covered:.0%}, n = {measured.n}"
            where, form = result.cell.title, "{:.3f}".format
            yield Target(asked, where, limit, measured.median, measured.interval, form, basis)


def _memory_target(results: Sequence[CellResult], where: str, *, weights: bool) -> Iterator[Target]:
    """Yield the largest extra peak of similarity and attention over some cells."""
    shares = [extra_memory(result, ATTENTION, weights=weights) for result in results]
    measured = [(share, index) for index, share in enumerate(shares) if share is not None]
    if measured:
        share, index = max(measured)
        asked = f"extra peak memory of {ATTENTION}, of {'weights and activations' if weights else 'activations alone'}"
        yield Target(asked, where + results[index].cell.title, EXTRA_MEMORY, share, None, percent)


def _growth_targets(fit: Growth | None, contestant: str) -> Iterator[Target]:
    if fit is None:
        return
    where = f"{fit.cells} cells" + (f", {fit.dropped} without an extra" if fit.dropped else "")
    for name, exponent in (("tokens", fit.tokens), ("layers", fit.layers)):
        if exponent is not None:
            asked = f"exponent of {name}, extra seconds of {contestant}"
            yield Target(asked, where, EXPONENT, *exponent, "{:.2f}".format, "95%, bootstrap")
