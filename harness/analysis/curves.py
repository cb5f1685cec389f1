"""Curves over depth, one row per sample: validation, clusters, and the mean with its covariance."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Clusters = Sequence[Hashable]

#: A spread below this share of the values' magnitude is rounding, not variance.
ROUNDING = 1e-12

#: Remaining share of a correlation matrix that may be ignored when the rows are too few for its rank.
_LEFT_OUT = 1e-9
_SEED = 20_241_101

#: Number of multiplications up to which OpenBLAS uses one thread; its documented limit is 262,144.
_UNSHARED = 200_000


def matrix_product(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return the matrix product a b of (n, r) and (r, k), independent of the number of threads.

    The rows are split into blocks too small for a BLAS to distribute over threads. On a busy machine, waiting for the
    threads takes a hundred times as long as the product. The order of summation would also change the last digits.
    """
    rows = max(2, _UNSHARED // max(1, b.size))
    return np.concatenate([a[i : i + rows] @ b for i in range(0, len(a), rows)])


def as_curves(x: npt.ArrayLike, name: str = "curves") -> FloatArray:
    """Return `x` as a checked float64 array of shape (samples, points).

    Args:
        x: one row per sample, one column per residual point.
        name: name of the array in error messages.

    Raises:
        ValueError: the array is not two-dimensional, has too few samples or points, or a value is not finite.
    """
    curves = np.asarray(x, dtype=np.float64)
    if curves.ndim != 2 or curves.shape[0] < 1 or curves.shape[1] < 2:
        raise ValueError(f"{name} must be samples x points with at least two points, not of shape {curves.shape}.")
    bad = np.argwhere(~np.isfinite(curves))
    if bad.size:
        sample, layer = (int(i) for i in bad[0])
        raise ValueError(
            f"{name} holds {len(bad)} values that are not finite, the first in sample {sample} at layer {layer}: "
            "exclude such samples or measure them again before judging."
        )
    return curves


def cluster_means(x: npt.ArrayLike, clusters: Clusters | None = None, name: str = "curves") -> FloatArray:
    """Return independent rows (clusters, points): the mean curve of every cluster, sorted by value.

    Samples that share an image are one observation. Averaging within clusters first makes the rows independent, as
    all later formulas require. The mean over clusters gives each cluster the same weight, whatever its size. Sorting
    makes each resampling a function of the set of rows, so the order of the samples changes no verdict.

    Args:
        x: (samples, points).
        clusters: one label per sample; None treats the samples as independent.
        name: name of the array in error messages.

    Raises:
        ValueError: as in `as_curves`, or the number of labels differs from the number of samples.
    """
    curves = as_curves(x, name)
    # The last bit of a sum depends on its order, so the samples are also sorted before clusters are averaged.
    order = np.lexsort(curves.T[::-1])
    curves = curves[order]
    if clusters is None:
        return curves
    if len(clusters) != len(curves):
        raise ValueError(f"{name} has {len(curves)} samples but {len(clusters)} cluster labels: give one per sample.")
    labels: dict[Hashable, int] = {}
    member = np.array([labels.setdefault(clusters[int(i)], len(labels)) for i in order])
    sums = np.zeros((len(labels), curves.shape[1]))
    np.add.at(sums, member, curves)
    means = sums / np.bincount(member, minlength=len(labels))[:, None]
    return means[np.lexsort(means.T[::-1])]


@dataclass(frozen=True, slots=True, eq=False)
class CurveSummary:
    """The mean curve of independent rows, with their covariance and number.

    `mean` is (points,). `covariance` (points, points) belongs to a single row. `n` counts independent rows.
    """

    mean: FloatArray
    covariance: FloatArray
    n: int

    @property
    def points(self) -> int:
        """Number of residual points, L + 1."""
        return len(self.mean)

    @property
    def df(self) -> int:
        """Degrees of freedom of the covariance."""
        return self.n - 1

    @property
    def standard_error(self) -> FloatArray:
        """Standard error of the mean at every point, (points,)."""
        variance: FloatArray = np.diag(self.covariance) / self.n
        return np.sqrt(np.maximum(variance, 0.0))


def summarise(x: npt.ArrayLike, clusters: Clusters | None = None, name: str = "curves") -> CurveSummary:
    """Return mean, covariance and number of independent rows of curves (samples, points).

    Variances caused by rounding alone are set to zero, so a constant layer is recognised as constant.

    Raises:
        ValueError: as in `cluster_means`, or there are fewer than two independent rows.
    """
    rows = cluster_means(x, clusters, name)
    if len(rows) < 2:
        raise ValueError(f"{name} has a single independent row: an uncertainty needs two or more.")
    mean = rows.mean(axis=0)
    centred = rows - mean
    constant = np.abs(centred).max(axis=0) <= ROUNDING * np.maximum(np.abs(rows).max(axis=0), ROUNDING)
    centred[:, constant] = 0.0
    return CurveSummary(mean=mean, covariance=matrix_product(centred.T, centred) / (len(rows) - 1), n=len(rows))


def rows_from_summary(summary: CurveSummary) -> FloatArray:
    """Return n rows (n, points) with exactly the mean and covariance of a summary, the inverse of `summarise`.

    Functions that need independent rows can thus process a summary. The rows are synthetic: a fixed normal sample,
    centred and made orthonormal, times a root of the covariance. A bootstrap of them assumes normal rows, because a
    summary contains no more than their first two moments.

    Raises:
        ValueError: there are fewer than two rows, or the covariance has too high a rank for n rows.
    """
    n = summary.n
    if n < 2:
        raise ValueError(f"a summary of {n} rows has no covariance: at least two rows are needed.")
    deviation = np.sqrt(np.maximum(np.diag(summary.covariance), 0.0))
    varies = deviation > 0.0
    scale = deviation[varies]
    root = _pivoted_root(summary.covariance[np.ix_(varies, varies)] / np.outer(scale, scale), n - 1)
    sample = np.random.default_rng(_SEED).standard_normal((n, root.shape[1]))
    orthonormal = np.linalg.qr(sample - sample.mean(axis=0))[0]
    rows = np.tile(summary.mean, (n, 1))
    rows[:, varies] += np.sqrt(n - 1.0) * matrix_product(orthonormal, (scale[:, None] * root).T)
    return rows


def _pivoted_root(correlation: FloatArray, max_rank: int) -> FloatArray:
    """Return a root (points, rank) of a correlation matrix: its product with its transpose is that matrix.

    Each step takes the point with the largest remaining variance as the pivot. In a semidefinite remainder no entry
    exceeds the largest variance, so that variance bounds the error.

    Raises:
        ValueError: the rank exceeds `max_rank`.
    """
    remainder, columns = correlation.copy(), np.zeros((len(correlation), 0))
    while remainder.size and (largest := remainder.diagonal().max()) > ROUNDING:
        if columns.shape[1] == max_rank:
            if largest <= _LEFT_OUT:
                break
            raise ValueError(f"{max_rank + 1} rows cannot have a covariance of rank above {max_rank}.")
        pivot = int(np.argmax(remainder.diagonal()))
        column = remainder[:, pivot] / np.sqrt(largest)
        columns = np.column_stack([columns, column])
        remainder -= np.outer(column, column)
    return columns
