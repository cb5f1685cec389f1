"""Landmarks of curves over depth: the steepest rise, where steps become small, and where a share stays high."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from harness.analysis.curves import BoolArray, Clusters, FloatArray, cluster_means
from harness.analysis.turning_points import DRAWS, BoundaryInterval, percentile_intervals, resampled_means

#: Returns the layer of a landmark in each mean curve (rows, positions), as (rows,); NaN if a curve has none.
Locate = Callable[[FloatArray], FloatArray]

#: States stop changing where the mean cosine of a token's states before and after a layer is at least this, ...
SETTLED_COSINE = 0.95
#: ... for this share of the depth in a row. The last layers change all states again, so they may be excepted.
SETTLED_SHARE = 0.25
#: The last token's best guess is the model's own in at least this share of the samples from the exit layer on.
EXIT_SHARE = 0.95


def steepest_rise(means: FloatArray) -> FloatArray:
    """Return the layer l whose rise, from residual point l - 1 to l, is the largest; the first of equal ones.

    Args:
        means: mean curves over the residual points 0..L, (rows, L + 1).

    Returns:
        Layers from 1 to L, (rows,).
    """
    rises: FloatArray = np.diff(means, axis=1)
    return np.asarray(np.argmax(rises, axis=1) + 1, dtype=np.float64)


def settling_layer(means: FloatArray) -> FloatArray:
    """Return the first layer of `SETTLED_SHARE` of the depth in a row with cosines of at least `SETTLED_COSINE`.

    Args:
        means: mean cosines of the states before and after each layer 1..L, (rows, L).

    Returns:
        Layers from 1 to L, (rows,); NaN if there are no such layers.
    """
    length = max(1, int(np.ceil(SETTLED_SHARE * means.shape[1])))
    windows = np.lib.stride_tricks.sliding_window_view(means, length, axis=1)
    settled: BoolArray = np.min(windows, axis=2) >= SETTLED_COSINE
    return np.where(settled.any(axis=1), np.argmax(settled, axis=1) + 1.0, np.nan)


def lasting_point(means: FloatArray) -> FloatArray:
    """Return the first residual point from which on a share stays at or above `EXIT_SHARE`.

    Args:
        means: shares at the residual points 0..L, (rows, L + 1).

    Returns:
        Residual points from 0 to L, (rows,); NaN if the share at the last point is lower.
    """
    # A small allowance, because a mean of clusters may round 0.95 down.
    lasting = np.logical_and.accumulate((means >= EXIT_SHARE - 1e-9)[:, ::-1], axis=1).sum(axis=1)
    return np.where(lasting > 0, means.shape[1] - lasting, np.nan)


def landmark_interval(
    x: npt.ArrayLike,
    locate: Locate,
    clusters: Clusters | None = None,
    level: float = 0.99,
    draws: int = DRAWS,
    seed: int = 0,
) -> BoundaryInterval:
    """Return a landmark of the mean of curves (samples, positions) with its percentile interval over the clusters.

    All three numbers are NaN if the mean curve, or more than 5 % of its resamples, have no such layer.

    Raises:
        ValueError: as in `cluster_means`.
    """
    rows = cluster_means(x, clusters)
    estimate, drawn = locate(rows.mean(axis=0)[None]), locate(resampled_means(rows, draws, seed))
    return percentile_intervals(estimate, drawn[:, None], level)[0]
