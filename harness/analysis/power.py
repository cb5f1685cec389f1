"""What a baseline is worth before it is written: would it stay quiet with nothing changed, and find what matters?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.analysis.agreement import judge_agreement, judge_recall
from harness.analysis.boundary_agreement import judge_boundaries
from harness.analysis.curves import Clusters, FloatArray, IntArray, as_curves, matrix_product
from harness.analysis.margins import boundary_margins
from harness.analysis.mean_difference import Sides, Verdict

MIN_EQUIVALENT, MIN_DETECTED = 0.95, 0.80
SHIFT_LAYERS, RECALL_LOSS = 2.0, 0.10
#: A comparison of recall takes a tenth of the time of one of curves with their boundaries.
DRAWS, RECALL_DRAWS = 40, 160
#: Multiples of a baseline's samples that a refusal tries.
SAMPLE_FACTORS = (1.5, 2.0, 3.0)
_THE_SAME = (Verdict.REPRODUCES, Verdict.EQUIVALENT)


@dataclass(frozen=True, slots=True)
class Power:
    """What the decision rule said of simulated runs of one measure against a baseline with `samples` samples.

    `equivalent` is the share of `draws` runs with nothing changed but noise that reproduced or were equivalent,
    `detected` the share of runs with the `change` that differed; None where the measure has nothing that could change
    so.
    """

    measure: str
    change: str
    equivalent: float
    detected: float | None
    samples: int
    draws: int

    @property
    def is_sufficient(self) -> bool:
        """Whether such a baseline may be written; what cannot change is no reason against it."""
        return self.equivalent >= MIN_EQUIVALENT and (self.detected is None or self.detected >= MIN_DETECTED)


def curve_power(
    inter: npt.ArrayLike,
    noise: npt.ArrayLike | None = None,
    *,
    margin: float,
    alpha_diff: float,
    boundaries: Sequence[float] | None = None,
    clusters: Clusters | None = None,
    size: float = 1.0,
    draws: int = DRAWS,
) -> Power:
    """Return how often a curve and its boundaries stay equivalent, and how often a shift by two layers is found.

    Each draw resamples the clusters and pairs the resample with itself plus rows of `noise`; once as it is, and once
    with the inside of every sample's curve two layers later. A shift is found where the curve or a boundary differs.

    Args:
        inter: the baseline's curves (samples, points), at least seven points.
        noise: rows (m, points) of how far samples moved when they were measured again; row i belongs to sample i where
            there are as many as samples, else rows are drawn at random. None or no row: they did not move.
        margin: of the curve, in its unit.
        alpha_diff: probability of a false "differs" of each assertion.
        boundaries: margins of the turning points, then of the half-heights; by default `boundary_margins` of `inter`.
        clusters: one label per sample.
        size: multiple of the baseline's clusters that a draw has.
        draws: number of simulated runs of each kind; shares have a standard error of 0.5 / sqrt(draws) at most.

    Raises:
        ValueError: arrays that are no curves of one depth, fewer than seven points, or a size or draws not positive.
    """
    curves = as_curves(inter, "the baseline")
    points = curves.shape[1]
    if points < 7:
        raise ValueError(f"a shift by two layers needs a curve of at least 7 points, not {points}.")
    margins = boundaries or [one.value for one in boundary_margins(curves, clusters)]
    shift = _shift_by(points, SHIFT_LAYERS)
    runs = _Runs.from_curves(curves, noise, clusters, size, draws)

    def judge(now: FloatArray, then: FloatArray, labels: IntArray, enough: tuple[Verdict, ...]) -> Verdict:
        """Return the verdict on the curve; where it is `enough` to go on, that on the boundaries."""
        sides = Sides.from_curves(now, then, True, labels.tolist())
        curve = judge_agreement(sides, margin, alpha_diff=alpha_diff).verdict
        return judge_boundaries(sides, margins=margins, alpha_diff=alpha_diff).verdict if curve in enough else curve

    stayed = found = 0
    for rows, labels, moved, _ in runs.drawn():
        then = curves[rows]
        verdict = judge(then + moved, then, labels, (Verdict.EQUIVALENT,))
        stayed += verdict in _THE_SAME
        now = matrix_product(then, shift) + moved
        found += judge(now, then, labels, (*_THE_SAME, Verdict.INCONCLUSIVE)) is Verdict.DIFFERS
    change = f"a shift by {SHIFT_LAYERS:g} layers"
    return Power("inter-modal similarity", change, stayed / draws, found / draws, runs.samples, draws)


def recall_power(
    hits: npt.ArrayLike,
    words: npt.ArrayLike,
    noise: npt.ArrayLike | None = None,
    *,
    alpha_diff: float,
    clusters: Clusters | None = None,
    size: float = 1.0,
    draws: int = RECALL_DRAWS,
) -> Power:
    """Return how often recall stays equivalent, and how often a loss of 0.10 is found.

    `hits` counts the words found (samples, points), of the `words` asked for (samples,), at least one each; all else is
    as in `curve_power`. Recall is lost at every layer whose mean recall is at least 0.10, each word found there being
    lost with the same probability. Where no layer has that much, `found` is None.

    Raises:
        ValueError: as `curve_power`, or more hits than words.
    """
    counts = as_curves(hits, "the hits").astype(np.int64)
    asked = np.asarray(words, dtype=np.float64)[:, None]
    if asked.shape[0] != counts.shape[0] or (counts > asked).any() or (counts < 0).any() or not (asked > 0.0).all():
        raise ValueError("recall needs, for every sample, one number of words and from none to all of them as hits.")
    recall = counts / asked
    runs = _Runs.from_curves(recall, noise, clusters, size, draws)
    mean = recall.mean(axis=0)
    has = mean >= RECALL_LOSS
    kept = np.where(has, 1.0 - RECALL_LOSS / np.where(has, mean, 1.0), 1.0)
    stayed = found = 0
    for rows, labels, moved, rng in runs.drawn():
        then, lost = recall[rows], rng.binomial(counts[rows], kept) / asked[rows]
        same, less = (
            Sides.from_curves(np.clip(now + moved, 0.0, 1.0), then, True, labels.tolist()) for now in (then, lost)
        )
        stayed += judge_recall(same, alpha_diff=alpha_diff).verdict in _THE_SAME
        if has.any():
            found += judge_recall(less, alpha_diff=alpha_diff).verdict is Verdict.DIFFERS
    share = found / draws if has.any() else None
    return Power("LogitLens recall", f"a loss of {RECALL_LOSS:g}", stayed / draws, share, runs.samples, draws)


def power_refusal(power: Power, simulate: Callable[[float], Power]) -> str | None:
    """Return why a baseline is not worth writing, with both shares and what to do, or None where it is.

    Args:
        power: of the baseline as it is.
        simulate: gives the power of a baseline with that many times the samples; asked only for a refusal.
    """
    if power.is_sufficient:
        return None
    larger = next((more for more in map(simulate, SAMPLE_FACTORS) if more.is_sufficient), None)
    found = ""
    if power.detected is not None:
        found = f", and of as many with {power.change} {power.detected:.0%} were found ({MIN_DETECTED:.0%} are asked)"
    remedy = f"{SAMPLE_FACTORS[-1]:g} times as many would not do: measure with less noise, in float32"
    if larger is not None:
        remedy = f"record it with --phase-samples {larger.samples}"
    return (
        f"a baseline of {power.measure} with {power.samples} samples decides too little: of {power.draws} simulated "
        f"runs with nothing changed {power.equivalent:.0%} were equivalent ({MIN_EQUIVALENT:.0%} are asked)"
        f"{found}; {remedy}."
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Runs:
    """Draws of clusters with their noise: `members` are the rows of each cluster, `noise` has rows (m, points)."""

    members: tuple[IntArray, ...]
    noise: FloatArray
    rows: int
    clusters: int
    draws: int

    @classmethod
    def from_curves(
        cls, curves: FloatArray, noise: npt.ArrayLike | None, clusters: Clusters | None, size: float, draws: int
    ) -> _Runs:
        rows, points = curves.shape
        moved = np.asarray(() if noise is None else noise, dtype=np.float64)
        if not moved.size:
            moved = np.zeros((rows, points))
        if moved.ndim != 2 or moved.shape[1] != points or not np.isfinite(moved).all():
            raise ValueError(f"noise of shape {moved.shape} is not that of curves with {points} points.")
        labels = range(rows) if clusters is None else clusters
        if len(labels) != rows:
            raise ValueError(f"there are {len(labels)} cluster labels for {rows} samples.")
        if not size > 0.0 or draws < 1:
            raise ValueError(f"a simulation needs a positive size and at least one draw, not {size} and {draws}.")
        rows_of: dict[object, list[int]] = {}
        for row, label in enumerate(labels):
            rows_of.setdefault(label, []).append(row)
        members = tuple(np.array(found, dtype=np.int64) for found in rows_of.values())
        return cls(members, moved, rows, max(2, round(size * len(members))), draws)

    @property
    def samples(self) -> int:
        """About how many samples a draw has."""
        return round(self.rows * self.clusters / len(self.members))

    def drawn(self) -> Iterator[tuple[IntArray, IntArray, FloatArray, np.random.Generator]]:
        """Yield rows of drawn clusters (k,), a label and the noise of each (k,) (k, points), and the generator."""
        rng = np.random.default_rng(0)
        for _ in range(self.draws):
            drawn = [self.members[cluster] for cluster in rng.integers(0, len(self.members), self.clusters)]
            rows = np.concatenate(drawn)
            labels = np.repeat(np.arange(len(drawn)), [len(members) for members in drawn])
            # Noise is a property of the sample where it is known for each.
            own = len(self.noise) == self.rows
            yield rows, labels, self.noise[rows if own else rng.integers(0, len(self.noise), len(rows))], rng


def shift_origin(points: int, layers: float) -> FloatArray:
    """Return the layers (points,) of a curve that its shift by so many layers has its values from; both ends stay.

    Straight between layers; what comes before the inside is stretched, what comes after it compressed.
    """
    last = points - 1.0
    return np.interp(np.arange(points), (0.0, layers + 1.0, last - 1.0, last), (0.0, 1.0, last - 1.0 - layers, last))


def _shift_by(points: int, layers: float) -> FloatArray:
    """Return the matrix (points, points) that shifts curves (rows, points)."""
    origin = shift_origin(points, layers)
    return np.stack([np.interp(origin, np.arange(points), row) for row in np.eye(points)])
