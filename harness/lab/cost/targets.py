"""Upper limits for the cost of measuring, compared with the measured values of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from harness.analysis.curves import FloatArray
from harness.analysis.timing import CONFIDENCE, log_ratios, median_with_interval
from harness.lab.cost.contestants import ATTENTION, EVERYTHING, PLAIN
from harness.lab.cost.cost_results import FULL_WIDTH, PAIR, SMALL_KIND, CellResult, CostRun

#: Limits of the time as a multiple of the plain pass, by device.
ATTENTION_RATIO = {"cpu": 1.10, "cuda": 1.05}
EVERYTHING_RATIO = {"cpu": 1.4, "cuda": 1.25}
#: The batch size for which the pairs have a target.
TARGET_BATCH = 8
EXTRA_MEMORY = 0.02
OUTSIDE_SHARE = 0.15
# Linear growth, with tolerance for a fit over less than two decades.
EXPONENT = 1.1
_DRAWS = 1000

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Ratio:
    """A contestant's time over the plain pass's: the median of `n` rounds, its interval and its coverage."""

    median: float
    interval: Interval
    coverage: float
    n: int


@dataclass(frozen=True, slots=True)
class Growth:
    """Fitted exponents of extra ~ tokens^a x layers^b with their intervals, None where only one value was measured.

    The fit uses `cells` cells. It excludes `dropped` cells, whose extra is not positive and so has no logarithm.
    """

    tokens: tuple[float, Interval] | None
    layers: tuple[float, Interval] | None
    cells: int
    dropped: int


@dataclass(frozen=True, slots=True)
class Target:
    """An upper limit with the measured value.

    `format_number` formats the limit and the measured value; `basis` states how the interval was obtained.
    """

    title: str
    scope: str
    limit: float
    measured: float
    interval: Interval | None
    format_number: Callable[[float], str]
    basis: str = "exact"

    @property
    def verdict(self) -> str:
        """The verdict as text: met, or missed by an amount, with a note if the limit lies inside the interval."""
        low, high = self.interval or (self.measured, self.measured)
        if high <= self.limit:
            return "met"
        missed = f"missed by {self.format_number(self.measured - self.limit)}"
        if low > self.limit:
            return f"**{missed}**"
        return f"{'met' if self.measured <= self.limit else missed}, but the interval contains the target"


def ratio(result: CellResult, contestant: str) -> Ratio | None:
    """Return the ratio of the contestant's time to the plain pass's of the same round, or None if it did not run."""
    seconds = _seconds(result, contestant)
    if not len(seconds):
        return None
    median, interval, coverage = median_with_interval(log_ratios(*seconds.T))
    low, high = np.exp(interval)
    return Ratio(float(np.exp(median)), (float(low), float(high)), coverage, len(seconds))


def extra_memory(result: CellResult, contestant: str, *, weights: bool) -> float | None:
    """Return a contestant's extra peak memory as a share of the plain pass's peak, with or without the weights."""
    if contestant not in result.peaks or PLAIN not in result.peaks:
        return None
    plain = result.peaks[PLAIN]
    return (result.peaks[contestant] - plain) / (plain + (result.weights if weights else 0))


def fit_growth(results: Sequence[CellResult], contestant: str) -> Growth | None:
    """Fit the median extra seconds of cells of one topology by least squares in logarithms.

    The intervals are 95 % percentile intervals of a bootstrap that resamples the rounds of every cell.

    Args:
        results: cells of different numbers of tokens and layers.
        contestant: the name of the contestant; its extra seconds are those beyond the plain pass of the same round.

    Returns:
        The exponents, or None if too few cells have a positive extra.
    """
    extras = [(result.cell, np.subtract(*_seconds(result, contestant).T)) for result in results]
    positive_extras = [(cell, extra) for cell, extra in extras if len(extra) and np.median(extra) > 0.0]
    sizes = np.log([[cell.tokens, cell.layers] for cell, _ in positive_extras]).reshape(-1, 2)
    varied = [column for column in range(2) if len(np.unique(sizes[:, column])) > 1]
    if not varied or len(positive_extras) < len(varied) + 1:
        return None
    design = np.column_stack([np.ones(len(positive_extras)), sizes[:, varied]])
    fitted = _fit_exponents(design, np.array([np.median(extra) for _, extra in positive_extras]))
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(_DRAWS):
        medians = np.array([np.median(rng.choice(extra, len(extra))) for _, extra in positive_extras])
        positive = medians > 0.0
        if np.linalg.matrix_rank(design[positive]) == design.shape[1]:
            draws.append(_fit_exponents(design[positive], medians[positive]))
    tail = 100 * (1.0 - CONFIDENCE) / 2.0
    low, high = np.percentile(draws, [tail, 100 - tail], axis=0)
    exponents = {column: (float(fitted[i]), (float(low[i]), float(high[i]))) for i, column in enumerate(varied)}
    return Growth(exponents.get(0), exponents.get(1), len(positive_extras), len(results) - len(positive_extras))


def targets(run: CostRun) -> Iterator[Target]:
    """Yield every target for which the run has cells."""
    full, small, pairs = (
        [result for result in run.cells if result.cell.kind == kind] for kind in (FULL_WIDTH, SMALL_KIND, PAIR)
    )
    # Without cells of the published widths, use the deepest cells of the small topology.
    deepest = max((result.cell.layers for result in small), default=0)
    topology = full or [result for result in small if result.cell.layers == deepest]
    yield from _ratio_targets(topology, ATTENTION, ATTENTION_RATIO[run.device])
    batches = [result for result in pairs if result.cell.batch == TARGET_BATCH]
    yield from _ratio_targets(batches if run.device == "cpu" else full, EVERYTHING, EVERYTHING_RATIO[run.device])
    for scope, results in (("", topology), ("worst: ", run.cells)):
        for weights in (True, False):
            yield from _memory_target(results, scope, weights=weights)
    for contestant in (ATTENTION, EVERYTHING):
        yield from _growth_targets(fit_growth(small, contestant), contestant)
    for measurement in run.measurements:
        scope = f"{measurement.label}, {measurement.samples} samples"
        yield Target(
            "time outside the model's forward passes",
            scope,
            OUTSIDE_SHARE,
            measurement.share,
            None,
            format_percent,
            "one run",
        )


def format_percent(share: float) -> str:
    """Return a share as a percentage, with two decimals below 10 % and one above."""
    return f"{share:.2%}" if abs(share) < 0.1 else f"{share:.1%}"


def _seconds(result: CellResult, contestant: str) -> FloatArray:
    """Return the seconds (rounds, 2) of a contestant and of the plain pass, for the rounds in which both ran."""
    rounds = zip(result.times.get(contestant, ()), result.times[PLAIN], strict=False)
    return np.array([pair for pair in rounds if None not in pair], dtype=np.float64).reshape(-1, 2)


def _fit_exponents(design: FloatArray, extra: FloatArray) -> FloatArray:
    solution = np.linalg.lstsq(design, np.log(extra), rcond=None)[0]
    return np.asarray(solution[1:], dtype=np.float64)


def _ratio_targets(results: Sequence[CellResult], contestant: str, limit: float) -> Iterator[Target]:
    for result in results:
        measured = ratio(result, contestant)
        if measured is not None:
            title, basis = f"time of {contestant}, x plain", f"{measured.coverage:.0%}, n = {measured.n}"
            scope, format_number = result.cell.title, "{:.3f}".format
            yield Target(title, scope, limit, measured.median, measured.interval, format_number, basis)


def _memory_target(results: Sequence[CellResult], scope: str, *, weights: bool) -> Iterator[Target]:
    """Yield the target for the largest extra peak of similarity and attention over the cells."""
    shares = [extra_memory(result, ATTENTION, weights=weights) for result in results]
    measured = [(share, index) for index, share in enumerate(shares) if share is not None]
    if measured:
        share, index = max(measured)
        title = f"extra peak memory of {ATTENTION}, of {'weights and activations' if weights else 'activations alone'}"
        yield Target(title, scope + results[index].cell.title, EXTRA_MEMORY, share, None, format_percent)


def _growth_targets(fit: Growth | None, contestant: str) -> Iterator[Target]:
    if fit is None:
        return
    scope = f"{fit.cells} cells" + (f", {fit.dropped} without an extra" if fit.dropped else "")
    for name, exponent in (("tokens", fit.tokens), ("layers", fit.layers)):
        if exponent is not None:
            title = f"exponent of {name}, extra seconds of {contestant}"
            yield Target(title, scope, EXPONENT, *exponent, "{:.2f}".format, "95%, bootstrap")
