"""Landmarks of synthetic curves with known truth, and their intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.depth_landmarks import (
    EXIT_SHARE,
    SETTLED_COSINE,
    Locate,
    landmark_interval,
    lasting_point,
    settling_layer,
    steepest_rise,
)

L = 12
RISE = np.where(np.arange(L + 1) >= 7, 0.6, 0.1) + 0.01 * np.arange(L + 1)
SETTLED = np.array([0.5, 0.8, 0.9, 0.96, 0.97, 0.97, 0.98, 0.97, 0.96, 0.90, 0.92, 0.6])
INTERRUPTED = np.array([0.5, 0.96, 0.97, 0.90, 0.97, 0.97, 0.98, 0.5, 0.96, 0.96, 0.96, 0.96])
SHARE = np.array([0.0, 0.2, 0.96, 0.90, 0.95, 0.97, 1.0])


@pytest.mark.parametrize(
    ("locate", "curve", "layer"),
    [
        (steepest_rise, RISE, 7),
        (steepest_rise, np.append(0.0, np.linspace(0.5, 0.9, L)), 1),
        (settling_layer, SETTLED, 4),
        (settling_layer, INTERRUPTED, 5),
        (settling_layer, np.full(L, 0.9), math.nan),
        (settling_layer, np.full(L, SETTLED_COSINE), 1),
        (lasting_point, SHARE, 4),
        (lasting_point, np.append(np.zeros(5), 1.0), 5),
        (lasting_point, np.ones(4), 0),
        (lasting_point, np.append(np.ones(5), 0.9), math.nan),
    ],
)
def test_the_landmark_of_a_curve_is_its_known_layer(locate: Locate, curve: np.ndarray, layer: float) -> None:
    np.testing.assert_array_equal(locate(curve[None]), [layer])
    rows = np.repeat(curve[None], 10, axis=0) + 1e-7 * np.random.default_rng(0).standard_normal((10, len(curve)))
    if locate is steepest_rise:
        interval = landmark_interval(rows, locate)
        assert (interval.estimate, interval.low, interval.high) == (layer,) * 3


@given(seed=st.integers(0, 2**32 - 1), points=st.integers(2, 12))
def test_landmarks_follow_their_definitions(seed: int, points: int) -> None:
    curves = np.random.default_rng(seed).uniform(0.9, 1.0, (3, points))
    for curve, rise, settled, lasting in zip(
        curves, steepest_rise(curves), settling_layer(curves), lasting_point(curves), strict=True
    ):
        rises = [curve[layer] - curve[layer - 1] for layer in range(1, points)]
        assert rise == 1 + rises.index(max(rises))
        length = math.ceil(points / 4)
        runs = [i + 1 for i in range(points - length + 1) if (curve[i : i + length] >= SETTLED_COSINE).all()]
        np.testing.assert_equal(settled, float(runs[0]) if runs else math.nan)
        lasts = [i for i in range(points) if (curve[i:] >= EXIT_SHARE).all()]
        np.testing.assert_equal(lasting, float(lasts[0]) if lasts else math.nan)


def test_the_interval_contains_the_layers_of_the_samples() -> None:
    """Half of the samples rise at layer 5 and half at layer 8, so resamples have either."""
    rng = np.random.default_rng(1)
    points = np.arange(L + 1)
    rows = np.stack([(points >= (5 if row % 2 else 8)) * 1.0 for row in range(20)]) + 0.01 * rng.random((20, L + 1))
    interval = landmark_interval(rows, steepest_rise)
    assert (interval.low, interval.high) == (5.0, 8.0)
    one_cluster_each = landmark_interval(rows, steepest_rise, [row % 2 for row in range(20)])
    assert one_cluster_each.low == 5.0


def test_a_landmark_that_resamples_lack_is_unknown() -> None:
    """The mean reaches the share at the last point only with all samples."""
    rows = np.zeros((40, 5))
    rows[:, -1] = 1.0
    rows[:2, -1] = 0.0
    assert lasting_point(rows.mean(0)[None])[0] == 4.0
    assert math.isnan(landmark_interval(rows, lasting_point).estimate)
