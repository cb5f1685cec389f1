"""Largest acceptable changes: equivalence margins of a baseline and per-sample tolerances of a reproduction."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.analysis.curves import Clusters, FloatArray, IntArray, cluster_means
from harness.analysis.turning_points import boundary_intervals, turning_points

MIN_CURVE_MARGIN, CURVE_MARGIN_SHARE = 0.01, 0.05
#: The attention shares of one token change more than means over all tokens. Rounding the weights to 8 bits changes the
#: shares by up to 8 % of their range, and the similarities by 2 % at most.
ATTENTION_MARGIN_SHARE = 0.10
#: The ratio of norms is many times larger for the embeddings than for the layers, so its share of the range is small.
NORM_MARGIN_SHARE = 0.01
RECALL_MARGIN, LAST_RECALL_MARGIN = 0.05, 0.02
MIN_PAIRS, MIN_SHARE = 32, 0.80
#: Confidence level of the interval for a baseline's own boundaries.
BASELINE_INTERVAL_LEVEL = 0.99


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The largest difference at which two measurements of the same samples count as the same.

    A sample reproduces if no layer differs by more than `amount` (one value, or one per sample). The measure
    reproduces if at least `share` of the samples do. `reason` explains the size. `noise` is the change of a sample when
    only the environment changes, in the measure's unit; None if unknown.
    """

    amount: float | tuple[float, ...] = 1e-3
    share: float = 1.0
    reason: str = ""
    noise: float | None = None


#: For a GPU or a 16-bit type on either side, unless a calibration replaces it.
CURVE_TOLERANCE = Tolerance(1e-3, 1.0, "declared for GPUs and 16-bit types")
#: For float32 or wider on CPUs on both sides. Other machines and releases changed no sample by more than 3e-6.
CPU_TOLERANCE = Tolerance(5e-5, 1.0, "declared for float32 on CPUs")
#: Hits are integers, so they are compared exactly, except that ties may change one sample in a hundred.
HIT_TOLERANCE = Tolerance(1e-9, 0.99, "whole words and tokens, equal in 99 % of the samples")


@dataclass(frozen=True, slots=True)
class Margins:
    """Equivalence margins of one curve, each with the reason for its size.

    `curve` is in the curve's unit, `turning_points` and `half_heights` in layers.
    """

    curve: float
    turning_points: int
    half_heights: float
    reason: str


def declared_margins(m: npt.ArrayLike, noise: float = 0.0, share: float = CURVE_MARGIN_SHARE) -> Margins:
    """Return the margins for a baseline whose mean curve is `m` (points,).

    The curve's margin is the largest of 0.01, a `share` of its range and three times `noise`. A turning point may
    shift by 3 % of the depth and at least one layer, a half-height by 1.5 % and at least half a layer.

    Args:
        m: mean curve of the baseline.
        noise: largest change of a layer's mean among calibration runs of the same samples.
        share: share of the range; `ATTENTION_MARGIN_SHARE` for attention shares.
    """
    curve = np.asarray(m, dtype=np.float64)
    spread = float(curve.max() - curve.min())
    last = len(curve) - 1
    reasons = {
        f"the least margin {MIN_CURVE_MARGIN:g}": MIN_CURVE_MARGIN,
        f"{share:.0%} of the range {spread:.3g}": share * spread,
        f"3 x the calibration noise {noise:.2g}": 3.0 * noise,
    }
    reason = max(reasons, key=lambda key: reasons[key])
    return Margins(
        curve=reasons[reason],
        turning_points=max(1, round(0.03 * last)),
        half_heights=max(0.5, 0.015 * last),
        reason=f"{reason}; layers: 3 % and 1.5 % of a depth of {last}",
    )


@dataclass(frozen=True, slots=True)
class BoundaryMargin:
    """The largest acceptable shift of one boundary in layers, named `turning_point_j` or `half_height_j`, j from 1."""

    name: str
    value: float
    reason: str


def boundary_margins(
    x: npt.ArrayLike, clusters: Clusters | None = None, segments: int = 4, start: int = 1
) -> tuple[BoundaryMargin, ...]:
    """Return the margins of the turning points, then of the half-heights, of a baseline's curves (samples, points).

    Each margin is the larger of the one in `declared_margins` and the distance to an end of the boundary's own 99 %
    interval. On a plateau the baseline itself does not determine where the curve turns, so a run cannot be expected to
    match it more closely.

    Raises:
        ValueError: as in `boundary_intervals`.
    """
    rows = cluster_means(x, clusters, "the baseline")
    boundaries = boundary_intervals(rows, segments=segments, start=start, level=BASELINE_INTERVAL_LEVEL)
    declared = declared_margins(rows.mean(axis=0))
    last = rows.shape[1] - 1
    layers = f"3 % of a depth of {last}, at least 1", f"1.5 % of the depth {last}, at least 0.5"
    kinds = (
        ("turning_point", boundaries.turning_points, float(declared.turning_points), layers[0]),
        ("half_height", boundaries.half_heights, declared.half_heights, layers[1]),
    )
    margins = []
    for kind, intervals, least, declared_reason in kinds:
        for index, interval in enumerate(intervals, start=1):
            half_length = max(interval.high - interval.estimate, interval.estimate - interval.low)
            value, reason = least, declared_reason
            if half_length > least:
                value = half_length
                reason = (
                    f"the baseline itself has it at {interval.low:.3g} to {interval.high:.3g} "
                    f"({BASELINE_INTERVAL_LEVEL:.0%})"
                )
            margins.append(BoundaryMargin(f"{kind}_{index}", value, reason))
    return tuple(margins)


def noise_refusal(m: npt.ArrayLike, noise: float) -> str | None:
    """Return why a baseline is too noisy to detect changes of its phases, or None if it is not.

    It is too noisy if three times `noise` exceeds a quarter of the smallest phase of the mean curve `m` (points,). With
    a margin of that size the phase could shrink unnoticed.
    """
    curve = np.asarray(m, dtype=np.float64)
    edges = [0, *turning_points(curve, 4), len(curve) - 1]
    sizes = np.abs(np.diff(curve[edges]))
    if 3.0 * noise <= sizes.min() / 4.0:
        return None
    return (
        f"calibration noise {noise:.2g} is too large for phase {int(np.argmin(sizes)) + 1}, which changes by "
        f"{sizes.min():.2g}: measure in float32, or with more samples."
    )


def recall_margins(points: int) -> FloatArray:
    """Return the equivalence margins (points,) of recall: 0.05, at the last residual point 0.02."""
    margins = np.full(points, RECALL_MARGIN)
    margins[-1] = LAST_RECALL_MARGIN
    return margins


@dataclass(frozen=True, slots=True, eq=False)
class Pairing:
    """The common samples of two measurements; `paired` is True if they are compared in pairs.

    `measured` and `baseline` are the rows of the common samples, aligned, (common,). `changed` lists ids present in
    both with different model inputs. `reason` states why `paired` is False, and is empty if it is True.
    """

    measured: IntArray
    baseline: IntArray
    changed: tuple[str, ...]
    paired: bool
    reason: str


def pair_samples(
    measured: Sequence[str],
    baseline: Sequence[str],
    measured_hashes: Sequence[Hashable],
    baseline_hashes: Sequence[Hashable],
) -> Pairing:
    """Return the common samples of two measurements: same id and same input hash.

    They are compared in pairs if there are at least 32 common samples and these are at least 80 % of the smaller
    measurement. A run with fewer samples than its baseline takes the first ones of the same order, so pairing applies.

    Args:
        measured: sample ids, unique.
        baseline: sample ids, unique.
        measured_hashes: hash of each sample's model inputs.
        baseline_hashes: likewise.

    Raises:
        ValueError: an id occurs twice, or the number of hashes differs from the number of ids.
    """
    for name, ids, hashes in (("this run", measured, measured_hashes), ("the baseline", baseline, baseline_hashes)):
        if len(set(ids)) != len(ids) or len(hashes) != len(ids):
            raise ValueError(f"the samples of {name} need unique ids and one input hash each.")
    baseline_rows = {sample: row for row, sample in enumerate(baseline)}
    shared = [(row, baseline_rows[sample]) for row, sample in enumerate(measured) if sample in baseline_rows]
    same = [
        (row, baseline_row) for row, baseline_row in shared if measured_hashes[row] == baseline_hashes[baseline_row]
    ]
    changed = tuple(
        measured[row] for row, baseline_row in shared if measured_hashes[row] != baseline_hashes[baseline_row]
    )
    smaller = min(len(measured), len(baseline))
    reason = ""
    if len(same) < MIN_PAIRS:
        reason = f"{len(same)} samples are common, {MIN_PAIRS} are needed for a comparison in pairs"
    elif len(same) < MIN_SHARE * smaller:
        reason = f"{len(same)} of {smaller} samples are common, {MIN_SHARE:.0%} are needed"
    paired = not reason
    if changed:
        reason = ", ".join(filter(None, [f"{len(changed)} samples have other model inputs", reason]))
    return Pairing(
        measured=np.array([row for row, _ in same], dtype=np.int64),
        baseline=np.array([baseline_row for _, baseline_row in same], dtype=np.int64),
        changed=changed,
        paired=paired,
        reason=reason,
    )
