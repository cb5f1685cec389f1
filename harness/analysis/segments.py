"""Confirmed number of alternating monotone segments, and its dependence on the prominence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.analysis.curves import BoolArray, CurveSummary, FloatArray, IntArray, summarise
from harness.analysis.quantiles import student_upper
from harness.analysis.simultaneous import simultaneous_bound

MIN_PROMINENCE, PROMINENCE_SHARE = 0.01, 0.10


def declared_prominence(m: npt.ArrayLike) -> float:
    """Return the smallest prominence that counts in a verdict: a tenth of the curve's range, at least 0.01."""
    curve = np.asarray(m, dtype=np.float64)
    return max(MIN_PROMINENCE, PROMINENCE_SHARE * float(curve.max() - curve.min()))


@dataclass(frozen=True, slots=True, eq=False)
class Rises:
    """The rise m[t] - m[s] over every pair of layers s < t: `first` and `last` hold s and t, all arrays are (K,)."""

    first: IntArray
    last: IntArray
    rise: FloatArray
    standard_error: FloatArray

    @classmethod
    def from_summary(cls, summary: CurveSummary) -> Rises:
        """Return the rises of a mean curve with the standard errors of the paired differences."""
        first, last = (indices.astype(np.int64) for indices in np.triu_indices(summary.points, 1))
        variance = np.diag(summary.covariance)
        spread = variance[first] + variance[last] - 2.0 * summary.covariance[first, last]
        # The difference of two equal variances is rounding.
        spread = np.where(spread <= 1e-14 * (variance[first] + variance[last]), 0.0, spread)
        return cls(first, last, summary.mean[last] - summary.mean[first], np.sqrt(spread / summary.n))

    def index(self, s: int, t: int) -> int:
        """Return the array index of the rise from layer s to layer t > s."""
        return int(np.flatnonzero((self.first == s) & (self.last == t))[0])


@dataclass(frozen=True, slots=True, eq=False)
class BoundedRises:
    """Rises with simultaneous intervals: every true rise lies within `critical` standard errors of its estimate.

    The intervals hold for all pairs of layers at once, so a pair may be selected after looking at the curve. `n` counts
    independent rows.
    """

    rises: Rises
    critical: float
    n: int

    @property
    def half_width(self) -> FloatArray:
        """Half-width of the simultaneous interval of each rise, (K,)."""
        return self.critical * self.rises.standard_error

    def between(self, s: int, t: int) -> tuple[float, float, float]:
        """Return the rise from layer s to layer t > s with the ends of its simultaneous interval."""
        index = self.rises.index(s, t)
        rise, width = float(self.rises.rise[index]), float(self.half_width[index])
        return rise, rise - width, rise + width


def bounded_rises(summary: CurveSummary, alpha: float = 0.01) -> BoundedRises:
    """Return the rises of the mean curve over all pairs of layers with the (1 - alpha) bound of max |T|.

    T is multivariate t with the covariance of the paired differences, simulated from a fixed seed.

    Raises:
        ValueError: alpha not in (0, 1).
    """
    rises = Rises.from_summary(summary)
    critical = simultaneous_bound(summary.covariance, summary.df, alpha, pairs=(rises.first, rises.last))
    return BoundedRises(rises, critical, summary.n)


def single_rise(
    rows: FloatArray, first: int, last: int, alpha: float, critical: float | None = None
) -> tuple[float, float, int]:
    """Return the mean rise of independent rows (n, points) between two layers, half its interval, and n.

    The interval has the two-sided error `alpha`, or a half-width of `critical` standard errors if that is given.

    Raises:
        ValueError: as in `summarise`.
    """
    ends = summarise(rows[:, [first, last]])
    reach = student_upper(alpha / 2, ends.df) if critical is None else critical
    return float(ends.mean[1] - ends.mean[0]), reach * float(Rises.from_summary(ends).standard_error[0]), ends.n


@dataclass(frozen=True, slots=True)
class Segment:
    """A confirmed rise (direction +1) or fall (-1) from layer `first` to layer `last`.

    `rise` is signed; `low` and `high` are the ends of its simultaneous interval.
    """

    first: int
    last: int
    direction: int
    rise: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ConfirmedSegments:
    """The confirmed number of monotone segments: between `count` and `at_most`, each larger than `prominence`.

    `start` is the direction of the first confirmed segment (0 if there is none). `chain` holds the segments in order of
    depth. `n` is the number of independent rows.
    """

    count: int
    at_most: int
    start: int
    chain: tuple[Segment, ...]
    prominence: float
    n: int


def confirm_segments(bounded: BoundedRises, prominence: float, start: int = 0) -> ConfirmedSegments:
    """Return the longest alternating chain of rises and falls that are confirmed to exceed `prominence`.

    A segment from s to t counts if the simultaneous lower bound of its size exceeds `prominence`. Segments of a chain
    do not overlap. Among the longest chains, the chain with the largest total rise and fall is returned.

    `at_most` is the length of the longest chain of segments whose simultaneous upper bound exceeds `prominence`. The
    true curve has no more segments, at the same confidence. The bounds' error covers both numbers together.

    Args:
        bounded: rises of the mean curve.
        prominence: in units of the curve; `declared_prominence` for a verdict.
        start: direction of the first segment, +1 or -1; 0 allows both.

    Raises:
        ValueError: the prominence is negative, or `start` is not -1, 0 or 1.
    """
    if prominence < 0.0:
        raise ValueError(f"a prominence cannot be negative, but is {prominence}.")
    rises = bounded.rises
    points = int(rises.last.max()) + 1
    size, width = rises.rise, bounded.half_width
    gain = np.zeros((points, points))
    gain[rises.first, rises.last] = np.abs(size)

    def square(condition: BoolArray) -> BoolArray:
        matrix = np.zeros((points, points), dtype=np.bool_)
        matrix[rises.first, rises.last] = condition
        return matrix

    confirmed = longest_chain(square(size - width > prominence), square(-size - width > prominence), gain, start)
    possible = longest_chain(square(size + width > prominence), square(-size + width > prominence), gain, start)
    chain = tuple(Segment(s, t, direction, *bounded.between(s, t)) for s, t, direction in confirmed)
    return ConfirmedSegments(
        count=len(chain),
        at_most=len(possible),
        start=chain[0].direction if chain else 0,
        chain=chain,
        prominence=prominence,
        n=bounded.n,
    )


def longest_chain(up: BoolArray, down: BoolArray, gain: FloatArray, start: int = 0) -> tuple[tuple[int, int, int], ...]:
    """Return the longest alternating chain of non-overlapping segments as (first, last, direction), in order of depth.

    Dynamic program over the layer where a segment ends, O(points^2). Its state is the best chain that ends by a layer
    with a rise, or with a fall. Among the longest chains it takes the largest total gain, then the earliest layers.

    Args:
        up: (points, points), entry [s, t] is True if s -> t may be a rise; only s < t is read.
        down: likewise for a fall.
        gain: (points, points), not negative.
        start: direction of the first segment, 0 for any.

    Raises:
        ValueError: `start` is not -1, 0 or 1.
    """
    if start not in (-1, 0, 1):
        raise ValueError(f"start must be +1, -1 or 0, not {start}.")
    points = len(up)
    # An additional segment outweighs any total gain of a chain.
    worth = 1.0 + gain / (2.0 * points * max(float(gain.max()), np.finfo(np.float64).tiny))
    allowed = {1: up, -1: down}
    base = {1: 0.0 if start >= 0 else -np.inf, -1: 0.0 if start <= 0 else -np.inf}
    best = {1: np.full(points, -np.inf), -1: np.full(points, -np.inf)}
    chains: dict[int, list[tuple[tuple[int, int, int], ...]]] = {1: [()], -1: [()]}
    for t in range(1, points):
        for direction in (1, -1):
            before = np.maximum(best[-direction][:t], base[direction])
            value = np.where(allowed[direction][:t, t], before + worth[:t, t], -np.inf)
            s = int(np.argmax(value))
            if value[s] > best[direction][t - 1]:
                earlier = chains[-direction][s] if best[-direction][s] > base[direction] else ()
                best[direction][t] = value[s]
                chains[direction].append((*earlier, (s, t, direction)))
            else:
                best[direction][t] = best[direction][t - 1]
                chains[direction].append(chains[direction][t - 1])
    return chains[1][-1] if best[1][-1] >= best[-1][-1] else chains[-1][-1]


@dataclass(frozen=True, slots=True)
class VanishingSegment:
    """A segment between two neighbouring extrema that no longer counts once the prominence reaches `prominence`.

    `removed` segments vanish with it: two inside the curve, one at an end.
    """

    prominence: float
    layers: tuple[int, int]
    removed: int


@dataclass(frozen=True, slots=True)
class Persistence:
    """The number of segments of one curve by prominence: its extrema, ends included, and their order of vanishing."""

    extrema: tuple[int, ...]
    vanishing: tuple[VanishingSegment, ...]

    def segment_count(self, delta: float) -> int:
        """Return the number of alternating segments of the curve that are each larger than `delta`."""
        return len(self.extrema) - 1 - sum(step.removed for step in self.vanishing if step.prominence <= delta)


def persistence(m: npt.ArrayLike) -> Persistence:
    """Return the number of segments of a curve (points,) for every prominence.

    Each step removes the smallest segment between neighbouring extrema, until none is left. Inside the curve both its
    extrema go, which merges three segments into one. At an end only the outer extremum goes. No remaining segment is
    smaller than the removed one, so the prominence never decreases from step to step.

    Raises:
        ValueError: the curve is empty, is not one row, or holds a value that is not finite.
    """
    curve = np.asarray(m, dtype=np.float64)
    if curve.ndim != 1 or not len(curve) or not np.isfinite(curve).all():
        raise ValueError("the persistence of a curve needs one row of finite values.")
    steps = np.sign(np.diff(curve))
    moving = np.flatnonzero(steps)
    turns = [int(moving[i]) for i in range(1, len(moving)) if steps[moving[i]] != steps[moving[i - 1]]]
    layers = [int(moving[0]), *turns, int(moving[-1]) + 1] if len(moving) else [0]
    vanishing: list[VanishingSegment] = []
    remaining = list(layers)
    while len(remaining) > 1:
        sizes = np.abs(np.diff(curve[remaining]))
        i = int(np.argmin(sizes))
        outer = (
            [remaining[0]]
            if i == 0
            else [remaining[-1]]
            if i == len(remaining) - 2
            else [remaining[i], remaining[i + 1]]
        )
        vanishing.append(
            VanishingSegment(prominence=float(sizes[i]), layers=(remaining[i], remaining[i + 1]), removed=len(outer))
        )
        remaining = [layer for layer in remaining if layer not in outer]
    return Persistence(extrema=tuple(layers), vanishing=tuple(vanishing))
