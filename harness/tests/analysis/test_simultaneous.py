from __future__ import annotations

import copy

import numpy as np
import pytest
from scipy import integrate, optimize, stats

from harness.analysis.curves import FloatArray
from harness.analysis.simultaneous import _computed_bound, _drawn, covariance_root, simultaneous_bound


def independent_bound(count: int, df: float, alpha: float, sides: int) -> float:
    """Return the closed form for uncorrelated T: given the common scale, the values are independent and normal."""

    def exceed(c: float) -> float:
        def given_scale(w: float) -> float:
            tail = sides * stats.norm.sf(c * w)
            return -np.expm1(count * np.log1p(-tail)) * stats.chi.pdf(w * np.sqrt(df), df) * np.sqrt(df)

        return integrate.quad(given_scale, 0.0, 4.0, limit=200, epsabs=alpha * 1e-6)[0]

    return optimize.brentq(lambda c: np.log(exceed(c) / alpha), 1.0, 20.0)


@pytest.mark.parametrize("alpha", [0.05, 0.01, 0.01 / 160])
@pytest.mark.parametrize(("count", "df"), [(5, 20.0), (31, 63.0)])
@pytest.mark.parametrize("sides", [1, 2])
def test_uncorrelated_layers_have_the_closed_form(alpha: float, count: int, df: float, sides: int) -> None:
    bound = simultaneous_bound(np.eye(count), df, alpha, two_sided=sides == 2)
    assert bound == pytest.approx(independent_bound(count, df, alpha, sides), abs=0.03)


def test_identical_layers_have_the_bound_of_one_layer() -> None:
    assert simultaneous_bound(np.ones((9, 9)), 30, 1e-3) == pytest.approx(stats.t.isf(5e-4, 30), abs=0.006)


def neighbours(points: int, adjacent: float) -> FloatArray:
    return adjacent ** np.abs(np.subtract.outer(np.arange(points), np.arange(points)))


def test_independent_draws_exceed_the_bound_at_the_stated_rate() -> None:
    covariance, rng = neighbours(12, 0.9), np.random.default_rng(1)
    normal = rng.standard_normal((60_000, 12)) @ covariance_root(covariance).T
    t = normal / np.sqrt(rng.chisquare(25, size=60_000) / 25)[:, None]
    first, last = np.triu_indices(12, 1)
    spread = np.sqrt(2.0 - 2.0 * covariance[first, last])
    for values, bound in (
        (np.abs(t), simultaneous_bound(covariance, 25, 0.02)),
        (t, simultaneous_bound(covariance, 25, 0.02, two_sided=False)),
        (np.abs(t[:, last] - t[:, first]) / spread, simultaneous_bound(covariance, 25, 0.02, pairs=(first, last))),
    ):
        assert np.mean(values.max(axis=1) > bound) == pytest.approx(0.02, abs=0.0025)


@pytest.mark.parametrize("alpha", [0.05, 1e-3, 1e-6])
def test_never_more_conservative_than_bonferroni(alpha: float) -> None:
    rng = np.random.default_rng(2)
    for adjacent in (0.0, 0.6, 0.97):
        for seed in rng.integers(0, 1000, 3):
            bound = simultaneous_bound(neighbours(31, adjacent), 40, alpha, seed=int(seed))
            assert stats.t.isf(alpha / 2, 40) <= bound <= stats.t.isf(alpha / 62, 40)


def test_seeds_agree_and_scale_and_constant_layers_do_not_matter() -> None:
    covariance = neighbours(31, 0.97)
    bounds = [simultaneous_bound(covariance, 63, 0.01 / 160, seed=seed) for seed in range(8)]
    assert np.ptp(bounds) < 0.05
    scale = np.linspace(0.1, 4.0, 31)
    assert simultaneous_bound(covariance * np.outer(scale, scale), 63, 1e-4) == pytest.approx(
        simultaneous_bound(covariance, 63, 1e-4), abs=0.03
    )
    padded = np.zeros((40, 40))
    padded[:31, :31] = covariance
    assert simultaneous_bound(padded, 63, 1e-4) == pytest.approx(simultaneous_bound(covariance, 63, 1e-4), abs=0.03)
    assert simultaneous_bound(np.zeros((3, 3)), 63, 1e-4) == pytest.approx(stats.t.isf(5e-5, 63))


@pytest.mark.parametrize(("df", "alpha"), [(0.0, 0.1), (5.0, 0.0), (5.0, 1.0)])
def test_impossible_levels_are_refused(df: float, alpha: float) -> None:
    with pytest.raises(ValueError, match="0 < alpha < 1"):
        simultaneous_bound(np.eye(2), df, alpha)


@pytest.mark.parametrize("rank", [3, 8, 20])
def test_the_root_times_its_transpose_is_the_covariance(rank: int) -> None:
    rows = np.random.default_rng(rank).standard_normal((rank, 8))
    rows[:, 5] = 0.0
    root = covariance_root(rows.T @ rows)
    np.testing.assert_allclose(root @ root.T, rows.T @ rows, atol=1e-10)
    assert (np.triu(root, 1) == 0.0).all()


def test_other_bounds_in_between_change_no_bound() -> None:
    """Draws are cached for the next bound over the same number of layers and must not change."""
    pairs = np.triu_indices(14, 1)
    requested = [
        lambda: simultaneous_bound(neighbours(31, 0.97), 63, 1e-4),
        lambda: simultaneous_bound(neighbours(31, 0.5), 20.5, 1e-2, two_sided=False),
        lambda: simultaneous_bound(neighbours(14, 0.9), 63, 1e-3, pairs=pairs),
        lambda: simultaneous_bound(neighbours(14, 0.9), 40, 1e-3, pairs=pairs, seed=5),
    ]
    first = [ask() for ask in requested]
    _computed_bound.cache_clear()
    assert [ask() for ask in reversed(requested)] == first[::-1]
    _computed_bound.cache_clear()
    _drawn.cache_clear()
    assert [ask() for ask in requested[::-1]] == first[::-1]


def test_equal_arguments_have_the_cached_bound_and_different_ones_do_not() -> None:
    covariance, pairs = neighbours(9, 0.9), np.triu_indices(9, 1)
    _computed_bound.cache_clear()
    bound = simultaneous_bound(covariance, 40, 1e-3)
    assert simultaneous_bound(covariance.T.copy(), 40.0, 1e-3) == bound
    assert _computed_bound.cache_info()[:2] == (1, 1)
    changed = [
        simultaneous_bound(neighbours(9, 0.5), 40, 1e-3),
        simultaneous_bound(covariance, 20, 1e-3),
        simultaneous_bound(covariance, 40, 1e-2),
        simultaneous_bound(covariance, 40, 1e-3, pairs=pairs),
        simultaneous_bound(covariance, 40, 1e-3, two_sided=False),
    ]
    assert len({bound, *changed}) == 6
    assert _computed_bound.cache_info().misses == 6


def test_a_bound_is_the_root_of_the_estimate_over_all_draws_at_once() -> None:
    """Compare with the same draws counted at once, without blocks."""
    covariance, df, alpha = neighbours(41, 0.97), 63.0, 1e-4
    first, last = np.triu_indices(41, 1)
    bound = simultaneous_bound(covariance, df, alpha, pairs=(first, last))
    root = covariance_root(covariance)
    factor = root[last] - root[first]
    factor /= np.sqrt((factor**2).sum(axis=1))[:, None]
    layers, dealt, normal, generator = _drawn(20_241_100, len(factor), 41)
    condition = factor[layers]
    across = normal - condition * (condition * normal).sum(axis=1, keepdims=True)
    across /= np.sqrt(copy.deepcopy(generator).chisquare(df + 1.0, size=len(across)))[:, None]

    def exceedance(c: float) -> float:
        tail = stats.t.sf(c, df)
        value = stats.t.isf((np.arange(512) + 0.5) / 512 * tail, df)[dealt, None]
        t = (condition @ factor.T) * value + (across @ factor.T) * np.sqrt(df + value**2)
        return 2.0 * len(factor) * tail * np.mean(1.0 / (np.abs(t) > c).sum(axis=1)) - alpha

    assert bound == pytest.approx(optimize.brentq(exceedance, 3.0, 8.0), abs=0.006)
