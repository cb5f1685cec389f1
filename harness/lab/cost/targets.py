"""What is asked of the cost of measuring, and what came."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from harness.analysis.timing import log_ratios, median_of_few
from harness.lab.cost.cells import FULL_WIDTH, PAIR, SMALL_KIND
from harness.lab.cost.contestants import ATTENTION, EVERYTHING, PLAIN
from harness.lab.cost.growth import growth
from harness.lab.cost.results import CellResult, Run

#: Times plain, on a CPU and on a GPU.
ATTENTION_RATIO = {"cpu": 1.10, "cuda": 1.05}
EVERYTHING_RATIO = {"cpu": 1.5, "cuda": 1.25}
EXTRA_MEMORY = 0.02
OUTSIDE = 0.15
# Linear, within what a fit over less than two decades can tell.
EXPONENT = 1.1


@dataclass(frozen=True, slots=True)
class Ratio:
    """A contestant's time over plain's: the median of the rounds, its interval, what that covers, and the rounds."""

    median: float
    interval: tuple[float, float]
    covered: float
    n: int


@dataclass(frozen=True, slots=True)
class Finding:
    """A target with what was measured; `form` prints a number of it, `basis` says what the interval stands on."""

    asked: str
    where: str
    target: float
    measured: float
    interval: tuple[float, float] | None
    form: Callable[[float], str]
    basis: str = "exact"

    @property
    def verdict(self) -> str:
        """Met or missed by how much; 'not decided' where the target lies inside the interval."""
        low, high = self.interval or (self.measured, self.measured)
        if high <= self.target:
            return "met"
        by = self.form(self.measured - self.target)
        if low > self.target:
            return f"**missed by {by}**"
        side = "met" if self.measured <= self.target else f"missed by {by}"
        return f"{side}, but the interval holds the target"


def ratio(result: CellResult, contestant: str) -> Ratio | None:
    """The contestant's time over that of the plain pass of the same round; None where it did not run."""
    pairs = [
        (mine, plain)
        for mine, plain in zip(result.times.get(contestant, ()), result.times[PLAIN], strict=False)
        if mine is not None and plain is not None
    ]
    if not pairs:
        return None
    mine, plain = zip(*pairs, strict=True)
    median, (low, high), covered = median_of_few(log_ratios(mine, plain))
    return Ratio(float(np.exp(median)), (float(np.exp(low)), float(np.exp(high))), covered, len(pairs))


def extra_memory(result: CellResult, contestant: str, *, weights: bool) -> float | None:
    """The extra peak of a contestant as a share of the plain pass's peak, with the weights or without them."""
    if contestant not in result.peaks or PLAIN not in result.peaks:
        return None
    plain = result.peaks[PLAIN]
    return (result.peaks[contestant] - plain) / (plain + (result.weights if weights else 0))


def findings(run: Run) -> Iterator[Finding]:
    """Every target that the run has cells for."""
    topology = _of(run, FULL_WIDTH) or _deepest(_of(run, SMALL_KIND))
    for result in topology:
        yield from _ratio_finding(result, ATTENTION, ATTENTION_RATIO[run.device])
    for result in _of(run, PAIR) if run.device == "cpu" else _of(run, FULL_WIDTH):
        yield from _ratio_finding(result, EVERYTHING, EVERYTHING_RATIO[run.device])
    for where, results in (("", topology), ("worst: ", run.cells)):
        for weights in (True, False):
            yield from _memory_finding(results, where, weights=weights)
    for contestant in (ATTENTION, EVERYTHING):
        found = growth(_of(run, SMALL_KIND), contestant)
        for name in ("tokens", "layers"):
            fitted = getattr(found, name, None)
            if found is not None and fitted is not None:
                where = f"{found.cells} cells" + (f", {found.dropped} without an extra" if found.dropped else "")
                yield Finding(
                    f"exponent of {name}, extra seconds of {contestant}",
                    where,
                    EXPONENT,
                    fitted[0],
                    fitted[1],
                    "{:.2f}".format,
                    "95%, bootstrap",
                )
    for found_outside in run.outside:
        yield Finding(
            "time outside the model's forward passes",
            f"{found_outside.label}, {found_outside.samples} samples",
            OUTSIDE,
            found_outside.share,
            None,
            percent,
            "one run",
        )


def place(result: CellResult) -> str:
    """A cell in words."""
    cell = result.cell
    beside = "" if cell.batch == 1 else f"{cell.batch} x "
    return f"{cell.label}, {cell.layers} layers, {beside}{cell.tokens} tokens"


def percent(share: float) -> str:
    """A share as a percentage, with the digits that it needs."""
    return f"{share:.2%}" if abs(share) < 0.1 else f"{share:.1%}"


def _memory_finding(results: Sequence[CellResult], where: str, *, weights: bool) -> Iterator[Finding]:
    """The largest extra peak of similarity and attention over some cells."""
    shares = [extra_memory(one, ATTENTION, weights=weights) for one in results]
    found = [(share, at) for at, share in enumerate(shares) if share is not None]
    if found:
        share, at = max(found)
        asked = f"extra peak memory of {ATTENTION}, of {'weights and activations' if weights else 'activations alone'}"
        yield Finding(asked, where + place(results[at]), EXTRA_MEMORY, share, None, percent)


def _of(run: Run, kind: str) -> list[CellResult]:
    return [result for result in run.cells if result.cell.kind == kind]


def _deepest(results: Sequence[CellResult]) -> list[CellResult]:
    """Those with the most layers: where the published widths were not measured they stand in for them."""
    most = max((result.cell.layers for result in results), default=0)
    return [result for result in results if result.cell.layers == most]


def _ratio_finding(result: CellResult, contestant: str, target: float) -> Iterator[Finding]:
    found = ratio(result, contestant)
    if found is not None:
        asked = f"time of {contestant}, x plain"
        basis = f"{found.covered:.0%}, n = {found.n}"
        yield Finding(asked, place(result), target, found.median, found.interval, "{:.3f}".format, basis)
