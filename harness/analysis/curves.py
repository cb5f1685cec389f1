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

#: A spread below this share of the values' own size is rounding, not variance.
ROUNDING = 1e-12

#: Share of a correlation matrix that rows too few for its rank may leave out.
_LEFT_OUT = 1e-9
_SEED = 20_241_101

#: Multiplications up to which OpenBLAS keeps to one thread (it says 262,144).
_UNSHARED = 200_000


def matrix_product(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return the matrix product a b of (n, r) and (r, k), the same on any number of threads.

    Taken in blocks of rows too small for a BLAS to share out: on a busy machine waiting for its threads costs a hundred
    times the product, and sums that depend on the number of threads would show in the last digits.
    """
    rows = max(2, _UNSHARED // max(1, b.size))
    return np.concatenate([a[i : i + rows] @ b for i in range(0, len(a), rows)])


def as_curves(x: npt.ArrayLike, name: str = "curves") -> FloatArray:
    """Return `x` as float64 of shape (samples, points), checked.

    Args:
        x: one row per sample, one column per residual point.
        name: how an error message calls the array.

    Raises:
        ValueError: not two-dimensional, no sample, fewer than two points, or a value that is not finite.
    """
    curves = np.asarray(x, dtype=np.float64)
    if curves.ndim != 2 or curves.shape[0] < 1 or curves.shape[1] < 2:
        raise ValueError(f"{name} must be samples x points with at least two points, not of shape {curves.shape}.")
    bad = np.argwhere(~np.isfinite(curves))
    if bad.size:
        sample, layer = (int(i) for i in bad[0])
        raise ValueError(
            f"{name} holds {len(bad)} values that are not finite, the first in sample {sample} at layer {layer}: "
            "leave such samples out or measure them again before judging."
        )
    return curves


def cluster_means(x: npt.ArrayLike, clusters: Clusters | None = None, name: str = "curves") -> FloatArray:
    """Return independent rows (clusters, points): the mean curve of every cluster, in an order set by their values.

    Samples that share a picture are one observation. Averaging inside a cluster first keeps every later formula that
    of independent rows; the mean over clusters weighs each cluster once, however many samples it has. The canonical
    order makes each resampling a function of the set of rows, so that the order of the samples changes no verdict.

    Args:
        x: (samples, points).
        clusters: one label per sample; None takes the samples as independent.
        name: how an error message calls the array.

    Raises:
        ValueError: as `as_curves`, or the number of labels is not that of the samples.
    """
    curves = as_curves(x, name)
    # Sums depend on their order in the last bit, so the samples are ordered before clusters are averaged, too.
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
    """The mean curve of independent rows with what its uncertainty needs.

    `mean` is (points,), `covariance` (points, points) that of a single row, and `n` counts independent rows.
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

    Variances that are rounding only are set to zero, so that a constant layer is recognised as constant.

    Raises:
        ValueError: as `cluster_means`, or fewer than two independent rows.
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
    """Return n rows (n, points) with exactly the mean and the covariance of a summary, so `summarise` gives it back.

    What takes independent rows takes a summary so. The rows are nobody's: a fixed normal sample, centred and made
    orthonormal, times a root of the covariance. A bootstrap of them is one of normal rows, as like the real ones as a
    summary can tell.

    Raises:
        ValueError: fewer than two rows, or a covariance that so few rows cannot have.
    """
    n = summary.n
    if n < 2:
        raise ValueError(f"a summary of {n} rows has no covariance: it takes two or more.")
    deviation = np.sqrt(np.maximum(np.diag(summary.covariance), 0.0))
    varies = deviation > 0.0
    scale = deviation[varies]
    root = _pivoted_root(summary.covariance[np.ix_(varies, varies)] / np.outer(scale, scale), n - 1)
    sample = np.random.default_rng(_SEED).standard_normal((n, root.shape[1]))
    orthonormal = np.linalg.qr(sample - sample.mean(axis=0))[0]
    rows = np.tile(summary.mean, (n, 1))
    rows[:, varies] += np.sqrt(n - 1.0) * matrix_product(orthonormal, (scale[:, None] * root).T)
    return rows


def _pivoted_root(correlation: FloatArray, most: int) -> FloatArray:
    """Return the columns (points, rank), at most so many, whose product with their transpose is a correlation matrix.

    Of the points that are left the one with most variance is next: what a semidefinite matrix has left at the end is
    nowhere larger than its largest variance.
    """
    left, columns = correlation.copy(), np.zeros((len(correlation), 0))
    while left.size and (largest := left.diagonal().max()) > ROUNDING:
        if columns.shape[1] == most:
            if largest <= _LEFT_OUT:
                break
            raise ValueError(f"a covariance of more than rank {most} is not that of {most + 1} rows.")
        pivot = int(np.argmax(left.diagonal()))
        column = left[:, pivot] / np.sqrt(largest)
        columns = np.column_stack([columns, column])
        left -= np.outer(column, column)
    return columns
