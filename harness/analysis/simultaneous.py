"""Bounds that hold at all layers, or over all pairs of layers, at once."""

from __future__ import annotations

from copy import deepcopy
from functools import cache, lru_cache
from math import isqrt

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from harness.analysis.curves import FloatArray, IntArray, matrix_product
from harness.analysis.quantiles import student_upper

_SEED = 20_241_100
_MOST_DRAWS, _LEAST_DRAWS, _NUMBERS, _TAIL = 4096, 1024, 500_000, 512
_BLOCK = 32_768
#: A remainder below this share of a point's variance is rounding.
_DETERMINED = 1e-11


def covariance_root(covariance: FloatArray) -> FloatArray:
    """Return a lower triangle (points, points) whose product with its transpose is the covariance, of any rank.

    Computed column by column in numpy. LAPACK would take a hundred times as long while its threads wait for a busy
    core, and eigenvectors can flip sign with the last bit. A point determined by the points before it gets no variance
    of its own.
    """
    points = len(covariance)
    root = np.zeros((points, points))
    for j in range(points):
        column = covariance[j:, j] - root[j:, :j] @ root[j, :j]
        if column[0] > _DETERMINED * covariance[j, j]:
            root[j:, j] = column / np.sqrt(column[0])
    return root


@lru_cache(maxsize=16)
def _drawn(seed: int, count: int, width: int) -> tuple[IntArray, IntArray, FloatArray, np.random.Generator]:
    """Return the random numbers for a bound over `count` layers, and the generator in its state after drawing them.

    They are cached because a profile needs dozens of such bounds.

    Returns:
        Layers (draws,), grid points (draws,), normal numbers (draws, width), and the generator.
    """
    draws = min(_MOST_DRAWS, max(_LEAST_DRAWS, _NUMBERS // count))
    rng = np.random.default_rng(seed)
    # Stratified: one layer from each of `draws` equal shares, so all layers occur equally often.
    strata = ((np.arange(draws) + rng.random(draws)) * count / draws).astype(np.int64)
    layers = rng.permutation(strata)
    # Student's quantile is the slowest part, so a fixed grid of the tail is assigned at random.
    grid_points = rng.permutation(np.arange(draws) % _TAIL)
    normal = rng.standard_normal((draws, width))
    for array in (layers, grid_points, normal):
        array.flags.writeable = False
    return layers, grid_points, normal, rng


def simultaneous_bound(
    covariance: FloatArray,
    df: float,
    alpha: float,
    *,
    pairs: tuple[IntArray, IntArray] | None = None,
    two_sided: bool = True,
    seed: int = _SEED,
) -> float:
    """Return c with P(max_l |T_l| > c) = alpha for T multivariate t with the correlation of `covariance`.

    With `pairs` = (s, t) the maximum runs over the differences between the points t[i] and s[i] instead of over the
    points. Layers or differences without variance are ignored. If at most one is left, the bound of a single layer is
    returned.

    The exceedance probability is K p1(c) E[1/N]. K is the number of layers and p1 the tail probability of a layer. N is
    the number of layers that exceed c, given that a randomly selected layer does. The selected value comes from the
    tail of Student's t, the others from their conditional distribution, which is again multivariate t.

    1/N lies between 1/K and 1 for any alpha. A few thousand draws therefore give c to about 0.01 even at alpha = 1e-5,
    where counting exceedances of plain draws would need millions. c never exceeds Bonferroni's bound.

    All values of c share a seed, so the root finder sees a fixed function and the result depends on the arguments only.
    It is rounded to two decimals, its accuracy, so the number of threads does not affect a report.

    Args:
        covariance: (points, points), any scale, any rank.
        df: degrees of freedom.
        alpha: probability of exceeding the bound anywhere, both sides together if `two_sided`.
        pairs: index arrays (K,), (K,).
        two_sided: False bounds max_l T_l.
        seed: seed of the draws.

    Raises:
        ValueError: `alpha` is not in (0, 1), or `df` is not positive.
    """
    if not 0.0 < alpha < 1.0 or not df > 0.0:
        raise ValueError(f"a simultaneous bound needs 0 < alpha < 1 and df > 0, not alpha = {alpha} and df = {df}.")
    numbers = np.ascontiguousarray(covariance, dtype=np.float64).tobytes()
    indices = None if pairs is None else np.asarray(pairs, dtype=np.int64).tobytes()
    return _computed_bound(numbers, indices, float(df), alpha, two_sided, seed)


@lru_cache(maxsize=256)
def _computed_bound(
    numbers: bytes, indices: bytes | None, df: float, alpha: float, two_sided: bool, seed: int
) -> float:
    """Return the bound for the bytes of a covariance and of the pairs.

    It is cached because verdicts, claims and pages ask for the same bounds of a profile.
    """
    points = isqrt(len(numbers) // 8)
    pairs = None if indices is None else np.frombuffer(indices, dtype=np.int64).reshape(2, -1)
    root = covariance_root(np.frombuffer(numbers).reshape(points, points))
    factor = root if pairs is None else root[pairs[1]] - root[pairs[0]]
    norm = np.sqrt((factor**2).sum(axis=1))
    varies = norm > 0.0
    factor = factor[varies] / norm[varies, None]
    sides = 2.0 if two_sided else 1.0
    count = len(factor)
    single = student_upper(alpha / sides, df)
    if count <= 1:
        return single
    bonferroni = student_upper(alpha / sides / count, df)

    selected_layers, grid_points, drawn, generator = _drawn(seed, count, factor.shape[1])
    selected_rows = factor[selected_layers]
    tail = (np.arange(_TAIL) + 0.5) / _TAIL
    normal = drawn - selected_rows * (selected_rows * drawn).sum(axis=1, keepdims=True)
    normal /= np.sqrt(deepcopy(generator).chisquare(df + 1.0, size=len(normal)))[:, None]

    def layers(directions: FloatArray) -> npt.NDArray[np.float32]:
        """Return values (K, draws) of all layers or differences, in float32 because they are only counted."""
        points = np.ascontiguousarray(matrix_product(directions, root.T).T)
        values = points[varies] if pairs is None else points[pairs[1][varies]] - points[pairs[0][varies]]
        values /= norm[varies, None]
        return np.asarray(values, dtype=np.float32)

    along, across = layers(selected_rows), layers(normal)
    # Blocks of layers that fit into a processor's cache, and whose number fits into a byte.
    step = max(1, min(255, _BLOCK // len(normal)))

    @cache
    def log_excess(c: float) -> float:
        single_tail = float(special.stdtr(df, -c))
        value = -special.stdtrit(df, tail * single_tail)[grid_points]
        narrow, spread = value.astype(np.float32), np.sqrt(df + value**2).astype(np.float32)
        exceed = np.zeros(len(normal), dtype=np.int64)
        for row in range(0, count, step):
            t = along[row : row + step] * narrow
            t += across[row : row + step] * spread
            exceeds = (np.abs(t, out=t) if two_sided else t) > c
            exceed += np.add.reduce(exceeds.view(np.uint8), axis=0, dtype=np.uint8)
        return float(np.log(sides * count * single_tail * np.mean(1.0 / np.maximum(exceed, 1))) - np.log(alpha))

    if log_excess(single) <= 0.0:
        return single
    if log_excess(bonferroni) >= 0.0:
        return bonferroni
    bound = round(float(optimize.brentq(log_excess, single, bonferroni, xtol=1e-3)), 2)
    return min(max(bound, single), bonferroni)
