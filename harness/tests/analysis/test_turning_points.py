from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.analysis.curves import FloatArray, cluster_means
from harness.analysis.turning_points import (
    boundary_intervals,
    half_heights,
    resampled_means,
    signed_rise,
    turning_points,
    turning_points_rows,
)
from harness.lab.simulation.synthetic import EDGES, PLATEAU, Shape
from harness.tests.support.synthetic_curves import draw_curves, phase_curve, plateau_curve

LONG_PLATEAU = Shape("long", (0, 3, 13, 16, 20, 23, 27, 30), (0.1, 0.45, 0.45, 0.2, 0.2, 0.65, 0.65, 0.4))
INTEGER_CURVES = st.lists(st.integers(-9, 9), min_size=6, max_size=10)


def total_rise(m: FloatArray, inside: tuple[int, ...], start: int) -> float:
    edges = (0, *inside, len(m) - 1)
    return sum(start * (-1) ** j * (m[b] - m[a]) for j, (a, b) in enumerate(pairwise(edges)))


def brute_force(m: FloatArray, segments: int, start: int) -> tuple[float, tuple[int, ...]]:
    """Return the largest total rise over all boundaries, with the earliest boundaries that attain it."""
    every = [
        (total_rise(m, inside, direction), inside)
        for direction in ((1, -1) if start == 0 else (start,))
        for inside in combinations(range(1, len(m) - 1), segments - 1)
    ]
    best = max(value for value, _ in every)
    return best, next(inside for value, inside in every if value == best)


@pytest.mark.parametrize("segments", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("start", [1, -1, 0])
def test_turning_points_are_the_best_of_all_boundaries(segments: int, start: int) -> None:
    rng = np.random.default_rng(segments)
    for points in range(6, 11):
        rows = rng.standard_normal((5, points))
        for row in rows:
            assert turning_points(row, segments, start) == brute_force(row, segments, start)[1]
        if start:
            result = turning_points_rows(rows, segments, start)
            assert [tuple(inside) for inside in result] == [turning_points(row, segments, start) for row in rows]


@given(values=INTEGER_CURVES, segments=st.integers(1, 5), start=st.sampled_from([1, -1, 0]))
@settings(max_examples=60, deadline=None)
def test_ties_do_not_cost_rise(values: list[int], segments: int, start: int) -> None:
    m = np.array(values, dtype=np.float64)
    inside = turning_points(m, segments, start)
    assert all(a < b for a, b in zip((0, *inside), (*inside, len(m) - 1), strict=True))
    best = brute_force(m, segments, start)[0]
    assert best == max(total_rise(m, inside, direction) for direction in ((1, -1) if start == 0 else (start,)))


@given(values=INTEGER_CURVES, add=st.integers(-50, 50), power=st.integers(-3, 3), segments=st.integers(2, 5))
@settings(max_examples=60, deadline=None)
def test_turning_points_do_not_depend_on_offset_or_scale(
    values: list[int], add: int, power: int, segments: int
) -> None:
    m = np.array(values, dtype=np.float64)
    for start in (1, -1, 0):
        assert turning_points(m * 2.0**power + add, segments, start) == turning_points(m, segments, start)
        # If both directions are equally good, the first segment rises; so mirrored curves agree only for a fixed start.
        if start:
            assert turning_points(-m, segments, -start) == turning_points(m, segments, start)


def test_ties_are_resolved_to_the_earliest_layer() -> None:
    assert turning_points([0.0, 1.0, 2.0, 2.0, 2.0, 1.0, 0.0], 2) == (2,)
    assert turning_points([2.0, 0.0, 0.0, 2.0, 2.0, 0.0], 3, start=-1) == (1, 3)


def test_signed_rise_counts_both_ends() -> None:
    m = np.array([[3.0, 5.0, 1.0, 4.0]])
    assert signed_rise(m, np.array([[1, 2]]), 1)[0] == (5 - 3) + (5 - 1) + (4 - 1)


@pytest.mark.parametrize(("segments", "start"), [(0, 1), (5, 1), (2, 2)])
def test_impossible_segmentations_are_refused(segments: int, start: int) -> None:
    with pytest.raises(ValueError, match=r"segments need|start must be"):
        turning_points(np.arange(5.0), segments, start)


def test_half_heights_of_straight_segments_are_their_middles() -> None:
    np.testing.assert_allclose(half_heights(phase_curve(), EDGES[1:-1]), [3.5, 11.0, 19.5, 27.0])


def test_half_height_is_the_first_crossing() -> None:
    wiggly = [0.0, 0.75, 0.25, 1.0, 1.0]
    np.testing.assert_allclose(half_heights(wiggly, [3]), [2 / 3, np.nan])
    np.testing.assert_allclose(half_heights([1.0, 0.5, 0.0], []), [1.0])


def test_a_segment_without_height_has_no_half_height() -> None:
    rows = np.array([[0.0, 0.0, 0.0, 1.0], [np.nan, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, np.nan]])
    result = half_heights(rows, np.array([[2], [2], [1]]))
    np.testing.assert_allclose(result, [[np.nan, 2.5], [np.nan, 2.5], [0.5, np.nan]])


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_half_heights_lie_in_their_phase_and_at_the_middle(seed: int) -> None:
    m = np.random.default_rng(seed).standard_normal(14)
    inside = turning_points(m, 4)
    edges = (0, *inside, 13)
    for layer, a, b in zip(half_heights(m, inside), edges[:-1], edges[1:], strict=True):
        assert a < layer < b
        assert np.interp(layer, np.arange(14), m) == pytest.approx((m[a] + m[b]) / 2)


def test_intervals_cover_the_truth() -> None:
    mean, truth = phase_curve(), half_heights(phase_curve(), EDGES[1:-1])
    hits = []
    for seed in range(40):
        result = boundary_intervals(draw_curves(mean, 32, seed, sd=0.08, adjacent=0.8), draws=400, seed=seed)
        hits.append([b.low <= t <= b.high for b, t in zip(result.half_heights, truth, strict=True)])
        hits[-1] += [b.low <= t <= b.high for b, t in zip(result.turning_points, EDGES[1:-1], strict=True)]
        for b in (*result.half_heights, *result.turning_points):
            assert b.low <= b.high
    assert np.mean(hits) >= 0.9
    assert np.min(np.mean(hits, axis=0)) >= 0.8


def test_intervals_do_not_depend_on_the_order_of_samples() -> None:
    x = draw_curves(plateau_curve(), 40, seed=1)
    labels = [f"picture {i // 2}" for i in range(40)]
    order = np.random.default_rng(0).permutation(40)
    assert boundary_intervals(x[order]) == boundary_intervals(x)
    assert boundary_intervals(x[order], [labels[i] for i in order]) == boundary_intervals(x, labels)


def test_samples_of_one_cluster_count_once() -> None:
    x = draw_curves(plateau_curve(), 30, seed=2)
    doubled, labels = np.repeat(x, 2, axis=0), [i // 2 for i in range(60)]
    result = boundary_intervals(doubled, labels)
    assert result == boundary_intervals(x)
    assert result.n == 30
    np.testing.assert_allclose(
        np.sort(cluster_means([[1.0, 2.0], [3.0, 6.0], [5.0, 5.0]], ["a", "a", "b"]), axis=0), [[2, 4], [5, 5]]
    )


def test_the_direction_of_the_first_segment_is_chosen_on_the_mean() -> None:
    x = draw_curves(-phase_curve(), 32, seed=0)
    result = boundary_intervals(x, start=0)
    assert result.start == -1
    assert [b.estimate for b in result.turning_points] == list(turning_points(x.mean(axis=0), 4, -1))


def test_a_flat_curve_has_no_half_heights() -> None:
    result = boundary_intervals(np.ones((5, 9)))
    assert all(np.isnan([b.estimate, b.low, b.high]).all() for b in result.half_heights)


def test_non_finite_values_are_reported() -> None:
    x = np.zeros((4, 6))
    x[2, 5] = np.nan
    with pytest.raises(ValueError, match="sample 2 at layer 5"):
        boundary_intervals(x)
    with pytest.raises(ValueError, match="one per sample"):
        boundary_intervals(np.zeros((4, 6)), ["a"])


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "n"), [(PLATEAU, 64), (LONG_PLATEAU, 64), (LONG_PLATEAU, 128)])
def test_half_heights_beside_flat_plateaus_are_covered(shape: Shape, n: int) -> None:
    mean = shape.curve(30)
    truth = half_heights(mean, turning_points(mean, 4))
    repetitions = 60
    hits = np.zeros(4)
    for seed in range(repetitions):
        result = boundary_intervals(draw_curves(mean, n, 1000 * n + seed), draws=1000)
        hits += [b.low <= t <= b.high for b, t in zip(result.half_heights, truth, strict=True)]
    # Of 60 intervals that cover with 0.95 fewer than 51 do once in a thousand times.
    assert hits.min() >= 51


def test_a_half_height_away_from_plateaus_keeps_its_percentile_interval() -> None:
    x = draw_curves(phase_curve(), 64, 3)
    result = boundary_intervals(x)
    means = resampled_means(cluster_means(x), 2000, 0)
    drawn = half_heights(means, turning_points_rows(means, 4))
    assert all(point.low == point.high for point in result.turning_points)
    for height, column in zip(result.half_heights, drawn.T, strict=True):
        assert height.low == pytest.approx(np.quantile(column, 0.025, method="lower"), abs=1e-9)
        assert height.high == pytest.approx(np.quantile(column, 0.975, method="higher"), abs=1e-9)


def test_one_segment_has_a_half_height_and_no_turning_point() -> None:
    result = boundary_intervals(draw_curves(np.linspace(0.0, 1.0, 9), 32, 0), segments=1)
    assert result.turning_points == ()
    assert result.half_heights[0].low <= 4.0 <= result.half_heights[0].high
