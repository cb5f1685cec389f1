from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.analysis.curves import BoolArray, FloatArray, summarise
from harness.analysis.segments import (
    ConfirmedSegments,
    bounded_rises,
    confirm_segments,
    declared_prominence,
    longest_chain,
    persistence,
)
from harness.tests.support.synthetic_curves import draw_curves, phase_curve, plateau_curve


def confirmed_segments(x: FloatArray, prominence: float, start: int = 0) -> ConfirmedSegments:
    return confirm_segments(bounded_rises(summarise(x)), prominence, start)


def every_chain(up: BoolArray, down: BoolArray, start: int) -> list[list[tuple[int, int, int]]]:
    """Return all alternating chains of non-overlapping segments, including the empty one."""
    points, chains = len(up), []

    def extend(chain: list[tuple[int, int, int]], start_point: int, directions: tuple[int, ...]) -> None:
        chains.append(chain)
        for s in range(start_point, points):
            for t in range(s + 1, points):
                for direction in directions:
                    if (up if direction > 0 else down)[s, t]:
                        extend([*chain, (s, t, direction)], t, (-direction,))

    extend([], 0, (1, -1) if start == 0 else (start,))
    return chains


@pytest.mark.parametrize("start", [1, -1, 0])
def test_the_longest_chain_is_the_longest_of_all(start: int) -> None:
    rng = np.random.default_rng(5)
    for _ in range(60):
        points = int(rng.integers(2, 7))
        up, down = rng.random((2, points, points)) < rng.uniform(0.1, 0.5)
        gain = rng.random((points, points))
        chain = list(longest_chain(up, down, gain, start))
        # A pair that may rise and fall yields two chains of the same gain, so gains are compared.
        worth = {
            tuple(segments): (len(segments), round(sum(gain[s, t] for s, t, _ in segments), 9))
            for segments in every_chain(up, down, start)
        }
        assert worth[tuple(chain)] == max(worth.values())


def longest_by_force(m: FloatArray, delta: float) -> int:
    difference = m[None, :] - m[:, None]
    return max(len(chain) for chain in every_chain(difference > delta, -difference > delta, 0))


@given(values=st.lists(st.integers(-4, 4), min_size=1, max_size=7), delta=st.integers(0, 6))
@settings(max_examples=150, deadline=None)
def test_the_segment_count_is_the_length_of_the_longest_chain(values: list[int], delta: int) -> None:
    m = np.array(values, dtype=np.float64)
    segments = persistence(m)
    assert segments.segment_count(delta) == longest_by_force(m, delta)
    assert [step.prominence for step in segments.vanishing] == sorted(step.prominence for step in segments.vanishing)


def test_persistence_of_a_known_curve() -> None:
    segments = persistence([0.0, 4.0, 3.0, 7.0, 2.0])
    assert segments.extrema == (0, 1, 2, 3, 4)
    assert [(step.prominence, step.layers, step.removed) for step in segments.vanishing] == [
        (1.0, (1, 2), 2),
        (5.0, (3, 4), 1),
        (7.0, (0, 3), 1),
    ]
    assert [segments.segment_count(delta) for delta in (0.0, 1.0, 4.9, 5.0, 7.0)] == [4, 2, 2, 1, 0]
    with pytest.raises(ValueError, match="finite"):
        persistence([0.0, np.nan])


@pytest.mark.parametrize(
    ("mean", "directions"),
    [
        (phase_curve(), (1, -1, 1, -1)),
        (plateau_curve(), (1, -1, 1, -1)),
        (phase_curve((0, 10, 20, 30), (0.1, 0.5, 0.2, 0.6)), (1, -1, 1)),
        (phase_curve((0, 6, 12, 18, 24, 30), (0.1, 0.4, 0.1, 0.5, 0.2, 0.6)), (1, -1, 1, -1, 1)),
        (phase_curve((0, 12, 30), (0.6, 0.1, 0.5)), (-1, 1)),
        (np.full(31, 0.3), ()),
    ],
    ids=["four", "plateaus", "three", "five", "down-up", "flat"],
)
def test_the_segments_of_known_curves_are_confirmed(mean: FloatArray, directions: tuple[int, ...]) -> None:
    x = draw_curves(mean, 64, seed=11)
    segments = confirmed_segments(x, 0.08)
    assert tuple(segment.direction for segment in segments.chain) == directions
    assert (segments.count, segments.start) == (len(directions), directions[0] if directions else 0)
    assert segments.at_most == len(directions)
    for segment in segments.chain:
        assert segment.low <= segment.rise <= segment.high
        assert min(abs(segment.low), abs(segment.high)) > 0.08
        assert segment.rise == pytest.approx(x.mean(axis=0)[segment.last] - x.mean(axis=0)[segment.first])


def test_a_chain_can_be_required_to_start_with_a_rise() -> None:
    x = draw_curves(phase_curve((0, 12, 30), (0.6, 0.1, 0.5)), 64, seed=0)
    assert confirmed_segments(x, 0.05, start=1).count == 1
    assert confirmed_segments(x, 0.05, start=-1).count == 2
    with pytest.raises(ValueError, match="start"):
        confirmed_segments(x, 0.05, start=3)


def test_weak_data_confirm_fewer_segments_and_exclude_fewer() -> None:
    strong, weak = (
        confirmed_segments(draw_curves(phase_curve(), n, seed=4, sd=0.15, adjacent=0.5), 0.05) for n in (200, 6)
    )
    assert strong.count == strong.at_most == 4
    assert weak.count < 4 <= weak.at_most


def test_no_more_segments_are_confirmed_than_there_are() -> None:
    """On curves whose segments are just too small, none of 40 draws confirms too many at alpha = 0.01."""
    mean = phase_curve((0, 15, 20, 30), (0.1, 0.50, 0.46, 0.60))
    for seed in range(40):
        segments = confirmed_segments(draw_curves(mean, 24, seed, adjacent=0.9), 0.05)
        assert segments.count <= 1 <= segments.at_most


def test_the_declared_prominence_is_a_tenth_of_the_range() -> None:
    assert declared_prominence([0.1, 0.6, 0.3]) == pytest.approx(0.05)
    assert declared_prominence([0.1, 0.12]) == 0.01


@given(seed=st.integers(0, 10_000), add=st.integers(-3, 3), power=st.integers(-4, 4))
@settings(max_examples=15, deadline=None)
def test_units_and_mirroring_leave_the_chain(seed: int, add: int, power: int) -> None:
    x, unit = draw_curves(phase_curve(), 24, seed, sd=0.15, adjacent=0.8), 2.0**power
    segments = confirmed_segments(x, 0.05)
    scaled = confirmed_segments(unit * x + add, 0.05 * unit)
    mirrored = confirmed_segments(-x, 0.05)
    assert [(m.first, m.last, m.direction) for m in scaled.chain] == [
        (m.first, m.last, m.direction) for m in segments.chain
    ]
    assert [(m.first, m.last, -m.direction) for m in mirrored.chain] == [
        (m.first, m.last, m.direction) for m in segments.chain
    ]
    assert segments.at_most == scaled.at_most == mirrored.at_most
