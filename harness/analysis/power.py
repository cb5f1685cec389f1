"""Power of a baseline, simulated before it is written.

Two shares: unchanged runs judged equivalent, and relevant changes detected.
"""

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
from harness.interface import option_text

MIN_EQUIVALENT, MIN_DETECTED = 0.95, 0.80
SHIFT_LAYERS, RECALL_LOSS = 2.0, 0.10
#: Comparing recall takes a tenth of the time of comparing curves with their boundaries.
DRAWS, RECALL_DRAWS = 40, 160
#: Multiples of the baseline's sample count that a refusal tries.
SAMPLE_FACTORS = (1.5, 2.0, 3.0)
_THE_SAME = (Verdict.REPRODUCES, Verdict.EQUIVALENT)


@dataclass(frozen=True, slots=True)
class Power:
    """Results of the decision rule on simulated runs of one measure against a baseline with `samples` samples.

    `equivalent` is the share of `draws` runs with noise only that reproduced or were equivalent. `detected` is the
    share of runs with the `change` that differed, None if the measure has nothing that could change this way.
    """

    measure: str
    change: str
    equivalent: float
    detected: float | None
    samples: int
    draws: int

    @property
    def is_sufficient(self) -> bool:
        """True if such a baseline may be written; a measure that cannot change is no obstacle."""
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
    """Return how often a curve and its boundaries stay equivalent, and how often a shift by two layers is detected.

    Each draw resamples the clusters and compares the resample with itself plus rows of `noise`. It does this once
    unchanged, and once with the inside of every sample's curve two layers later. A shift is detected if the curve or a
    boundary differs.

    Args:
        inter: the baseline's curves (samples, points), at least seven points.
        noise: changes of samples between repeated measurements, rows (m, points). Row i belongs to sample i if there
            are as many rows as samples, else rows are drawn at random. None or no row: no noise.
        margin: margin of the curve, in its unit.
        alpha_diff: probability of a false "differs" in each assertion.
        boundaries: margins of the turning points, then of the half-heights; by default `boundary_margins` of `inter`.
        clusters: one label per sample.
        size: number of clusters per draw, as a multiple of the baseline's clusters.
        draws: number of simulated runs of each kind. Shares have a standard error of 0.5 / sqrt(draws) at most.

    Raises:
        ValueError: the shapes do not match, there are fewer than seven points, or `size` or `draws` is not positive.
    """
    curves = as_curves(inter, "the baseline")
    points = curves.shape[1]
    if points < 7:
        raise ValueError(f"a shift by two layers needs a curve of at least 7 points, not {points}.")
    margins = boundaries or [boundary.value for boundary in boundary_margins(curves, clusters)]
    shift = _shift_by(points, SHIFT_LAYERS)
    runs = _Runs.from_curves(curves, noise, clusters, size, draws)

    def judge(shifted: FloatArray, baseline: FloatArray, labels: IntArray, continuing: tuple[Verdict, ...]) -> Verdict:
        """Return the verdict on the curve, or on the boundaries if the curve's verdict is in `continuing`."""
        sides = Sides.from_curves(shifted, baseline, True, labels.tolist())
        curve = judge_agreement(sides, margin, alpha_diff=alpha_diff).verdict
        return judge_boundaries(sides, margins=margins, alpha_diff=alpha_diff).verdict if curve in continuing else curve

    equivalent = detected = 0
    for rows, labels, noise_rows, _ in runs.drawn():
        baseline = curves[rows]
        verdict = judge(baseline + noise_rows, baseline, labels, (Verdict.EQUIVALENT,))
        equivalent += verdict in _THE_SAME
        shifted = matrix_product(baseline, shift) + noise_rows
        detected += judge(shifted, baseline, labels, (*_THE_SAME, Verdict.INCONCLUSIVE)) is Verdict.DIFFERS
    change = f"a shift by {SHIFT_LAYERS:g} layers"
    return Power("inter-modal similarity", change, equivalent / draws, detected / draws, runs.samples, draws)


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
    """Return how often recall stays equivalent, and how often a loss of 0.10 is detected.

    Recall is lost at every layer whose mean recall is at least 0.10. Each word recalled there is lost with the same
    probability. If no layer has that much recall, `detected` is None.

    Args:
        hits: number of words recalled, (samples, points).
        words: number of words tested, (samples,), at least one each.
        noise: as in `curve_power`.
        alpha_diff: as in `curve_power`.
        clusters: as in `curve_power`.
        size: as in `curve_power`.
        draws: as in `curve_power`.

    Raises:
        ValueError: as in `curve_power`, or there are more hits than words.
    """
    counts = as_curves(hits, "the hits").astype(np.int64)
    word_counts = np.asarray(words, dtype=np.float64)[:, None]
    if (
        word_counts.shape[0] != counts.shape[0]
        or (counts > word_counts).any()
        or (counts < 0).any()
        or not (word_counts > 0.0).all()
    ):
        raise ValueError("recall needs a positive number of words per sample, and hits between 0 and that number.")
    recall = counts / word_counts
    runs = _Runs.from_curves(recall, noise, clusters, size, draws)
    mean = recall.mean(axis=0)
    affected = mean >= RECALL_LOSS
    keep_probability = np.where(affected, 1.0 - RECALL_LOSS / np.where(affected, mean, 1.0), 1.0)
    equivalent = detected = 0
    for rows, labels, noise_rows, rng in runs.drawn():
        baseline, lost = recall[rows], rng.binomial(counts[rows], keep_probability) / word_counts[rows]
        unchanged, reduced = (
            Sides.from_curves(np.clip(curves + noise_rows, 0.0, 1.0), baseline, True, labels.tolist())
            for curves in (baseline, lost)
        )
        equivalent += judge_recall(unchanged, alpha_diff=alpha_diff).verdict in _THE_SAME
        if affected.any():
            detected += judge_recall(reduced, alpha_diff=alpha_diff).verdict is Verdict.DIFFERS
    share = detected / draws if affected.any() else None
    return Power("LogitLens recall", f"a loss of {RECALL_LOSS:g}", equivalent / draws, share, runs.samples, draws)


def power_refusal(power: Power, simulate: Callable[[float], Power]) -> str | None:
    """Return why a baseline has too little power, with both shares and a remedy, or None if it has enough.

    Args:
        power: power of the baseline as recorded.
        simulate: returns the power of a baseline with this multiple of the samples; called only for a refusal.
    """
    if power.is_sufficient:
        return None
    larger = next((candidate for candidate in map(simulate, SAMPLE_FACTORS) if candidate.is_sufficient), None)
    detection = ""
    if power.detected is not None:
        detection = (
            f", and of as many with {power.change} {power.detected:.0%} were detected ({MIN_DETECTED:.0%} required)"
        )
    remedy = f"{SAMPLE_FACTORS[-1]:g} times as many would not suffice: measure with less noise, in float32"
    if larger is not None:
        remedy = f"record it with {option_text('samples', str(larger.samples))}"
    return (
        f"a baseline of {power.measure} with {power.samples} samples has too little power: of {power.draws} simulated "
        f"runs without a change {power.equivalent:.0%} were equivalent ({MIN_EQUIVALENT:.0%} required)"
        f"{detection}; {remedy}."
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Runs:
    """Resampled clusters with noise: `members` holds the rows of each cluster, `noise` has rows (m, points)."""

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
        noise_rows = np.asarray(() if noise is None else noise, dtype=np.float64)
        if not noise_rows.size:
            noise_rows = np.zeros((rows, points))
        if noise_rows.ndim != 2 or noise_rows.shape[1] != points or not np.isfinite(noise_rows).all():
            raise ValueError(f"noise of shape {noise_rows.shape} does not match curves with {points} points.")
        labels = range(rows) if clusters is None else clusters
        if len(labels) != rows:
            raise ValueError(f"there are {len(labels)} cluster labels for {rows} samples.")
        if not size > 0.0 or draws < 1:
            raise ValueError(f"a simulation needs a positive size and at least one draw, not {size} and {draws}.")
        rows_of: dict[object, list[int]] = {}
        for row, label in enumerate(labels):
            rows_of.setdefault(label, []).append(row)
        members = tuple(np.array(cluster, dtype=np.int64) for cluster in rows_of.values())
        return cls(members, noise_rows, rows, max(2, round(size * len(members))), draws)

    @property
    def samples(self) -> int:
        """Approximate number of samples per draw."""
        return round(self.rows * self.clusters / len(self.members))

    def drawn(self) -> Iterator[tuple[IntArray, IntArray, FloatArray, np.random.Generator]]:
        """Yield the rows of the drawn clusters (k,), their labels (k,), their noise (k, points), and the generator."""
        rng = np.random.default_rng(0)
        for _ in range(self.draws):
            clusters = [self.members[cluster] for cluster in rng.integers(0, len(self.members), self.clusters)]
            rows = np.concatenate(clusters)
            labels = np.repeat(np.arange(len(clusters)), [len(members) for members in clusters])
            # Noise belongs to a sample if every sample has its own row.
            per_sample = len(self.noise) == self.rows
            yield rows, labels, self.noise[rows if per_sample else rng.integers(0, len(self.noise), len(rows))], rng


def shift_origin(points: int, layers: float) -> FloatArray:
    """Return the layers (points,) from which a curve shifted by `layers` takes its values.

    Both ends stay fixed. The mapping is linear in between: layers before the inside are stretched, later layers
    compressed.
    """
    last = points - 1.0
    return np.interp(np.arange(points), (0.0, layers + 1.0, last - 1.0, last), (0.0, 1.0, last - 1.0 - layers, last))


def _shift_by(points: int, layers: float) -> FloatArray:
    """Return the matrix (points, points) that shifts curves (rows, points)."""
    origin = shift_origin(points, layers)
    return np.stack([np.interp(origin, np.arange(points), row) for row in np.eye(points)])
