"""What a curve shows beyond its control on the same samples: a shape that needs no picture is no evidence of fusion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.analysis.curves import Clusters, FloatArray, cluster_means, summarise
from harness.analysis.mean_difference import layers_where
from harness.analysis.segments import bounded_rises, single_rise
from harness.analysis.simultaneous import simultaneous_bound

#: A mean difference to a control counts where it is certainly larger than this cosine.
MIN_CONTROL_DIFFERENCE = 0.01


@dataclass(frozen=True, slots=True)
class ControlDifference:
    """By how much something exceeds the same under `control`, on the same samples.

    `effect` is real minus control with its `interval`; `confirmed` is True if the interval excludes zero on the side
    that the claim asks for. `quantity` names the quantity.
    """

    control: str
    quantity: str
    effect: float
    interval: tuple[float, float]
    confirmed: bool
    n: int


@dataclass(frozen=True, slots=True)
class CurveDifference:
    """Where a mean curve lies certainly above, and certainly below, its control, by more than `margin`.

    `above` and `below` are layers, `highest` and `lowest` the largest differences in them (0 where there are none);
    the layers hold all at once with `confidence`. `n` counts independent rows.
    """

    control: str
    above: tuple[int, ...]
    below: tuple[int, ...]
    highest: float
    lowest: float
    margin: float
    confidence: float
    n: int


def difference_rows(x: npt.ArrayLike, control: npt.ArrayLike, clusters: Clusters | None = None) -> FloatArray:
    """Return real minus control as independent rows (clusters, points) of curves (samples, points).

    Raises:
        ValueError: as `cluster_means`, or not the same samples.
    """
    real, other = np.asarray(x, dtype=np.float64), np.asarray(control, dtype=np.float64)
    if real.shape != other.shape:
        raise ValueError(f"a control of shape {other.shape} is not of the same samples as a curve of {real.shape}.")
    return cluster_means(real - other, clusters, "the difference to a control")


def curve_difference(
    rows: FloatArray, control: str, alpha: float = 0.01, margin: float = MIN_CONTROL_DIFFERENCE
) -> CurveDifference:
    """Return at which layers the mean of `differences` rows (n, points) is certainly larger than `margin`.

    All layers at once, with probability 1 - `alpha`.

    Raises:
        ValueError: fewer than two rows.
    """
    summary = summarise(rows)
    width = simultaneous_bound(summary.covariance, summary.df, alpha) * summary.standard_error
    above, below = summary.mean - width > margin, summary.mean + width < -margin
    return CurveDifference(
        control=control,
        above=layers_where(above),
        below=layers_where(below),
        highest=float(summary.mean[above].max(initial=0.0)),
        lowest=float(summary.mean[below].min(initial=0.0)),
        margin=margin,
        confidence=1.0 - alpha,
        n=summary.n,
    )


def rise_difference(
    rows: FloatArray, control: str, what: str, layers: tuple[int, int], direction: int, alpha: float, *, chosen: bool
) -> ControlDifference:
    """Return by how much more a curve changes over a phase than under its control.

    Args:
        rows: `differences`, (n, points).
        control: its name.
        what: names the quantity.
        layers: where the phase begins and ends.
        direction: +1 where the claim asks for a rise, -1 for a fall.
        alpha: two-sided error of the interval.
        chosen: the layers were found on this curve, so the interval holds for all pairs of layers at once.

    Raises:
        ValueError: fewer than two rows.
    """
    if chosen:
        effect, low, high = bounded_rises(summarise(rows), alpha).between(*layers)
    else:
        effect, width, _ = single_rise(rows, *layers, alpha)
        low, high = effect - width, effect + width
    certain = low > 0.0 if direction > 0 else high < 0.0
    return ControlDifference(control, what, effect, (low, high), certain, len(rows))
