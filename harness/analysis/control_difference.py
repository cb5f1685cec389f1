"""Differences between a curve and its control on the same samples.

A shape that also appears without the image is no evidence of fusion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.analysis.curves import Clusters, FloatArray, cluster_means, summarise
from harness.analysis.mean_difference import layers_where
from harness.analysis.segments import bounded_rises, single_rise
from harness.analysis.simultaneous import simultaneous_bound

#: Smallest cosine difference to a control that counts; the confidence bound must exceed it.
MIN_CONTROL_DIFFERENCE = 0.01


@dataclass(frozen=True, slots=True)
class ControlDifference:
    """The difference between a quantity and the same quantity under `control`, on the same samples.

    `effect` is real minus control, with its `interval`. `confirmed` is True if the interval excludes zero in the
    direction of the claim. `quantity` is the name of the quantity.
    """

    control: str
    quantity: str
    effect: float
    interval: tuple[float, float]
    confirmed: bool
    n: int


@dataclass(frozen=True, slots=True)
class CurveDifference:
    """The layers at which a mean curve is confirmed to lie above or below its control by more than `margin`.

    `above` and `below` are layers. `highest` and `lowest` are the largest positive and negative differences at these
    layers, 0 if there are none. `confidence` applies to all layers at once. `n` counts independent rows.
    """

    control: str
    above: tuple[int, ...]
    below: tuple[int, ...]
    highest: float
    lowest: float
    margin: float
    confidence: float
    n: int


def difference_rows(
    x: npt.ArrayLike,
    control: npt.ArrayLike,
    clusters: Clusters | None = None,
    samples: Sequence[int] | None = None,
) -> FloatArray:
    """Return real minus control as independent rows (clusters, points) of curves (samples, points).

    Args:
        x: a curve, one row per sample.
        control: the same curve under a control.
        clusters: one label per sample.
        samples: the index of the sample of each row of the control; None if it has the rows of `x`.

    Raises:
        ValueError: as in `cluster_means`, or the shapes differ.
    """
    real, other = np.asarray(x, dtype=np.float64), np.asarray(control, dtype=np.float64)
    if samples is not None:
        real, clusters = real[samples], None if clusters is None else [clusters[row] for row in samples]
    if real.shape != other.shape:
        raise ValueError(
            f"a control of shape {other.shape} does not have the same samples as a curve of shape {real.shape}."
        )
    return cluster_means(real - other, clusters, "the difference to a control")


@dataclass(frozen=True, slots=True, eq=False)
class DifferenceBand:
    """A mean difference (points,) with half the width of its simultaneous interval at every point, and n rows."""

    mean: FloatArray
    half_width: FloatArray
    confidence: float
    n: int


def difference_band(rows: FloatArray, alpha: float = 0.01) -> DifferenceBand:
    """Return the mean of difference rows (n, points) with a band that holds at all points with probability 1 - `alpha`.

    Raises:
        ValueError: there are fewer than two rows.
    """
    summary = summarise(rows)
    critical = simultaneous_bound(summary.covariance, summary.df, alpha)
    return DifferenceBand(summary.mean, critical * summary.standard_error, 1.0 - alpha, summary.n)


def curve_difference(
    rows: FloatArray, control: str, alpha: float = 0.01, margin: float = MIN_CONTROL_DIFFERENCE
) -> CurveDifference:
    """Return the layers at which the mean difference is confirmed to exceed `margin`, upwards or downwards.

    The bounds hold for all layers at once with probability 1 - `alpha`. `rows` (n, points) come from `difference_rows`.

    Raises:
        ValueError: there are fewer than two rows.
    """
    band = difference_band(rows, alpha)
    above, below = band.mean - band.half_width > margin, band.mean + band.half_width < -margin
    return CurveDifference(
        control=control,
        above=layers_where(above),
        below=layers_where(below),
        highest=float(band.mean[above].max(initial=0.0)),
        lowest=float(band.mean[below].min(initial=0.0)),
        margin=margin,
        confidence=band.confidence,
        n=band.n,
    )


def rise_difference(
    rows: FloatArray,
    control: str,
    quantity: str,
    layers: tuple[int, int],
    direction: int,
    alpha: float,
    *,
    chosen: bool,
) -> ControlDifference:
    """Return the change of a curve over a phase minus the change of its control.

    Args:
        rows: result of `difference_rows`, (n, points).
        control: name of the control.
        quantity: name of the quantity.
        layers: first and last layer of the phase.
        direction: +1 if the claim is a rise, -1 if it is a fall.
        alpha: two-sided error of the interval.
        chosen: True if the layers were selected on this curve; the interval then holds for all pairs of layers.

    Raises:
        ValueError: there are fewer than two rows.
    """
    if chosen:
        effect, low, high = bounded_rises(summarise(rows), alpha).between(*layers)
    else:
        effect, width, _ = single_rise(rows, *layers, alpha)
        low, high = effect - width, effect + width
    confirmed = low > 0.0 if direction > 0 else high < 0.0
    return ControlDifference(control, quantity, effect, (low, high), confirmed, len(rows))
