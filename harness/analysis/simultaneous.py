"""Bounds that hold at all layers, or over all pairs of layers, at once."""

from __future__ import annotations

import numpy as np
from scipy import optimize, special, stats

from harness.analysis.curves import FloatArray, IntArray

_SEED = 20_241_100
_MOST_DRAWS, _LEAST_DRAWS, _NUMBERS, _TAIL = 4096, 1024, 800_000, 512


def symmetric_root(covariance: FloatArray) -> FloatArray:
    """Returns the symmetric square root (points, points) of a covariance matrix of any rank.

    It is continuous in its argument, unlike eigenvectors or a pivoted triangle: rounding cannot turn the draws over.
    """
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    root: FloatArray = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    return root


def simultaneous_bound(
    covariance: FloatArray,
    df: float,
    alpha: float,
    *,
    pairs: tuple[IntArray, IntArray] | None = None,
    two_sided: bool = True,
    seed: int = _SEED,
) -> float:
    """Returns c with P(max_l |T_l| > c) = alpha for T multivariate t with the correlation of `covariance`.

    With `pairs` = (s, t) the maximum runs over the differences between the points t[i] and s[i] instead of over the
    points. Layers or differences without variance take no part; with none left the bound of a single one is returned.

    The exceedance probability is written as K p1(c) E[1/N], where K counts the layers, p1 is the tail probability of
    one of them, and N is how many layers exceed c, given that one drawn at random does (the given value comes from the
    tail of Student's t, the others from their conditional distribution, again multivariate t). 1/N lies between 1/K
    and 1 however small alpha is: a few thousand draws give c to about 0.01 even at alpha = 1e-5, where counting
    exceedances of plain draws would need millions, and c is never above Bonferroni's. The same seed serves every c, so
    the root is found on a fixed function and the result is a function of the arguments.

    Args:
        covariance: (points, points), any scale, any rank.
        df: degrees of freedom.
        alpha: probability of exceeding the bound anywhere, both sides together if `two_sided`.
        pairs: index arrays (K,), (K,).
        two_sided: False bounds max_l T_l.
        seed: of the draws.

    Raises:
        ValueError: alpha not in (0, 1) or df not positive.
    """
    if not 0.0 < alpha < 1.0 or not df > 0.0:
        raise ValueError(f"a simultaneous bound needs 0 < alpha < 1 and df > 0, not alpha = {alpha} and df = {df}.")
    factor = symmetric_root(covariance)
    if pairs is not None:
        factor = factor[pairs[1]] - factor[pairs[0]]
    norm = np.sqrt((factor**2).sum(axis=1))
    factor = factor[norm > 0.0] / norm[norm > 0.0, None]
    sides = 2.0 if two_sided else 1.0
    count = len(factor)
    single = float(stats.t.isf(alpha / sides, df))
    if count <= 1:
        return single
    bonferroni = float(stats.t.isf(alpha / sides / count, df))

    draws = min(_MOST_DRAWS, max(_LEAST_DRAWS, _NUMBERS // count))
    rng = np.random.default_rng(seed)
    # Layers are given equally often: one out of each of `draws` equal shares of them.
    strata = ((np.arange(draws) + rng.random(draws)) * count / draws).astype(np.int64)
    given = factor[rng.permutation(strata)]
    # Student's quantile is the dearest part: a fixed grid of the tail, dealt out at random.
    tail, dealt = (np.arange(_TAIL) + 0.5) / _TAIL, rng.permutation(np.arange(draws) % _TAIL)
    normal = rng.standard_normal((draws, factor.shape[1]))
    normal -= given * (given * normal).sum(axis=1, keepdims=True)
    normal /= np.sqrt(rng.chisquare(df + 1.0, size=draws))[:, None]
    along, across = given @ factor.T, normal @ factor.T

    def log_excess(c: float) -> float:
        one = float(stats.t.sf(c, df))
        value = -special.stdtrit(df, tail * one)[dealt]
        t = along * value[:, None] + across * np.sqrt(df + value**2)[:, None]
        exceed = ((np.abs(t) if two_sided else t) > c).sum(axis=1)
        return float(np.log(sides * count * one * np.mean(1.0 / np.maximum(exceed, 1))) - np.log(alpha))

    if log_excess(single) <= 0.0:
        return single
    if log_excess(bonferroni) >= 0.0:
        return bonferroni
    return float(optimize.brentq(log_excess, single, bonferroni, xtol=1e-3))
