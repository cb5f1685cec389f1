from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.analysis.turning_points import turning_points
from harness.baselines.store import read_baseline
from harness.judgement.pairing import match_inputs
from harness.lab.simulation.populations import PAIRS, Change, Population, remeasure
from harness.lab.simulation.synthetic import PLATEAU, SHALLOW, SHARP, Shape, shift_curve, shift_curves, stretch_curves
from harness.profile.measures import CURVES, KNOCKOUT_FAMILY, MEASURES, SHARE_GROUPS

MANY = Population(SHARP, 30, 4000)
REAL = Path(__file__).parents[3] / "baselines" / "scenes-llava" / "scenes.json"


def test_a_drawn_profile_has_the_arrays_of_a_measured_one() -> None:
    drawn, measured = PAIRS[0].draw(0), read_baseline(REAL).profile
    assert drawn.measured(MEASURES) == tuple(MEASURES)
    # A baseline may lack measures that were added after it was recorded. Arrays that are not judged are not drawn.
    judged = {name for name in measured.arrays if name in MEASURES or not name.startswith(KNOCKOUT_FAMILY)}
    assert drawn.arrays.keys() >= judged
    for name in judged:
        array = drawn.arrays[name]
        assert array.shape == measured.arrays[name].shape
        assert array.dtype == measured.arrays[name].dtype


@pytest.mark.parametrize("population", PAIRS, ids=lambda population: population.name)
def test_shares_hits_and_cosines_are_in_range(population: Population) -> None:
    drawn = population.draw(7)
    for profile in (drawn, remeasure(drawn, 8)):
        for kind in ("norm", "weight"):
            shares = np.stack([profile[f"{kind}_{group}"] for group in SHARE_GROUPS])
            assert (shares > 0.0).all()
            np.testing.assert_allclose(shares.sum(axis=0), 1.0, atol=1e-6)
        hits = profile.arrays["hits"]
        assert (hits >= 0).all()
        assert (hits[:, :, 0] <= hits[:, :, 1]).all()
        assert (hits[:, :, 1] <= profile.arrays["words"][:, None]).all()
        assert set(np.unique(profile["exit_agreement"])) == {0, 1}
        assert all(np.abs(profile[name]).max() < 1.0 for name in CURVES)
    assert len(set(drawn.clusters)) == population.n // population.per_image


def test_curves_have_the_declared_mean_spread_and_correlation() -> None:
    inter = MANY.draw(0)["inter"].astype(np.float64)
    np.testing.assert_allclose(inter.mean(axis=0), SHARP.curve(30), atol=0.006)
    np.testing.assert_allclose(inter.std(axis=0), 0.08, rtol=0.05)
    adjacent = np.corrcoef(inter.T)[np.arange(30), np.arange(1, 31)]
    np.testing.assert_allclose(adjacent, 0.97, atol=0.006)


def test_samples_of_one_image_share_half_of_the_variance() -> None:
    inter = Population(SHARP, 30, 4000, per_image=2).draw(0)["inter"]
    np.testing.assert_allclose(inter.std(axis=0), 0.08, rtol=0.06)
    assert np.corrcoef(inter[::2, 12], inter[1::2, 12])[0, 1] == pytest.approx(0.5, abs=0.06)


def test_the_same_seed_draws_the_same_samples() -> None:
    first, second, other = PAIRS[1].draw(3), PAIRS[1].draw(3), PAIRS[1].draw(4)
    assert all((first.arrays[name] == second.arrays[name]).all() for name in first.arrays)
    assert len(match_inputs(first, second).pairing.measured) == first.n
    assert not set(first.sample_ids) & set(other.sample_ids)


def test_remeasuring_changes_every_sample_slightly() -> None:
    drawn = PAIRS[0].draw(1)
    remeasured = remeasure(drawn, 2)
    assert len(match_inputs(remeasured, drawn).pairing.measured) == drawn.n
    for name in CURVES:
        change = remeasured[name].astype(np.float64) - drawn[name]
        assert (np.abs(change).max(axis=1) > 1e-3).all()
        assert np.abs(change.mean(axis=0)).max() < 0.01
    changed = (remeasured.arrays["hits"] != drawn.arrays["hits"]).any(axis=(1, 2))
    assert 0 < changed.sum() < 16
    assert (remeasured["exit_agreement"][:, -1] == drawn["exit_agreement"][:, -1]).all()


@pytest.mark.parametrize("depth", [30, 32, 40])
@pytest.mark.parametrize("shape", [SHARP, PLATEAU, SHALLOW], ids=lambda shape: shape.name)
def test_turning_points_of_a_shape_scale_with_depth(shape: Shape, depth: int) -> None:
    turns = turning_points(shape.curve(depth), 4)
    np.testing.assert_allclose(turns, np.multiply(turning_points(shape.curve(30), 4), depth / 30), atol=1.0)
    flat = shape.without_fall().curve(depth)
    assert (np.diff(flat[: turns[2] + 1]) >= 0.0).all()
    assert (flat[turns[2] :] == shape.curve(depth)[turns[2] :]).all()


def test_changes_have_the_declared_size() -> None:
    before = MANY.draw(5)
    means = {
        name: MANY.draw(5, change)["inter"].mean(axis=0)
        for name, change in {
            "none": Change(),
            "shift": Change(layers=2.0),
            "flat": Change(flattened=True),
            "wide": Change(stretch=1.25),
        }.items()
    }
    assert (means["none"] == before["inter"].mean(axis=0)).all()
    assert turning_points(means["shift"], 4) == (9, 17, 26)
    expected = before["inter"].mean(axis=0) + SHARP.without_fall().curve(30) - SHARP.curve(30)
    np.testing.assert_allclose(means["flat"], expected, atol=5e-3)
    np.testing.assert_allclose(np.ptp(means["wide"]), 1.25 * np.ptp(means["none"]), rtol=0.02)
    np.testing.assert_allclose(means["wide"].mean(), means["none"].mean(), atol=1e-4)
    lost = MANY.draw(5, Change(lost_recall=0.10))
    assert before["recall_5"][:, -1].mean() - lost["recall_5"][:, -1].mean() == pytest.approx(0.10, abs=0.005)
    assert (lost.arrays["hits"] <= before.arrays["hits"]).all()
    assert (lost["inter"] == before["inter"]).all()


def test_each_row_is_shifted_and_stretched_by_its_own_amount() -> None:
    curve = SHARP.curve(30)
    rows = shift_curves(np.stack([curve, curve]), [0.0, 3.0])
    np.testing.assert_allclose(rows, [curve, shift_curve(curve, 3.0)])
    wider = stretch_curves(np.stack([curve, curve]), [1.0, 2.0])
    np.testing.assert_allclose(wider[0], curve)
    np.testing.assert_allclose(wider[1] - curve.mean(), 2.0 * (curve - curve.mean()))
