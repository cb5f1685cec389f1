"""Boundaries as shares of the depth: layers divided by L, for models of any depth."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from harness.analysis.turning_points import BoundaryInterval
from harness.judgement.phases import phases_of, relative_depth
from harness.profile.profile import Profile
from harness.report.details import relative_lines, unread_lines
from harness.tests.support.synthetic_profiles import L, synthetic_profile


def test_a_boundary_is_divided_by_the_number_of_layers() -> None:
    relative = relative_depth(BoundaryInterval(16.0, 12.0, 32.0), 32)
    assert relative == BoundaryInterval(0.5, 0.375, 1.0)


def test_relative_depth_does_not_depend_on_the_number_of_layers() -> None:
    shallow, deep = (relative_depth(BoundaryInterval(depth / 2, depth / 4, depth), depth) for depth in (8, 80))
    assert shallow == deep


def test_a_depth_of_zero_is_an_error() -> None:
    with pytest.raises(ValueError, match="relative to 0 layers"):
        relative_depth(BoundaryInterval(0.0, 0.0, 0.0), 0)


def test_phases_are_given_in_layers_and_relative_depth() -> None:
    rows = phases_of(synthetic_profile())
    relative = rows["relative_depth"]
    assert relative["depth"] == L
    for name in ("turning_points", "half_heights"):
        for layers, shares in zip(rows[name], relative[name], strict=True):
            assert shares == [None if layer is None else pytest.approx(layer / L, rel=1e-5) for layer in layers]


def registered(name: str, depth: int) -> Profile:
    """Return a profile of the given depth; residual points after the first are repeated."""
    made = synthetic_profile()
    repeats = np.r_[1, np.full(L, depth // L)]
    arrays = {
        key: np.repeat(array, repeats, axis=1) if array.ndim > 1 and array.shape[1] == L + 1 else array
        for key, array in made.arrays.items()
    }
    return dataclasses.replace(made, model=name, arrays=arrays)


def test_the_summary_shows_relative_depth_for_models_of_different_depth() -> None:
    shallow, deep = registered("scenes-llava", L), registered("llava-1.5-7b", 2 * L)
    assert relative_lines({"one": shallow, "other": shallow}) == []
    rows = {line.split()[0]: line.split() for line in relative_lines({"one": shallow, "other": deep}) if line}
    assert (rows["one"][1], rows["other"][1]) == (str(L), str(2 * L))
    assert rows["one"][2:] == ["0.17", "0.42", "0.83"]
    assert max(abs(float(a) - float(b)) for a, b in zip(rows["one"][2:], rows["other"][2:], strict=True)) <= 1 / L
    assert max(map(len, relative_lines({"one": shallow, "other": deep}))) <= 100
    assert any(line.startswith("mine") for line in relative_lines({"mine": registered("mine", L)}))


def test_the_summary_lists_layers_without_attention() -> None:
    profile = synthetic_profile()
    full = {f"{kind}_self": np.ones((4, L), dtype=np.float32) for kind in ("norm", "weight")}
    assert unread_lines("p", dataclasses.replace(profile, arrays=profile.arrays | full)) == []
    full["weight_self"][:, [0, 1, 4]] = 0.0
    full["norm_self"][:, [0, 1, 3, 4]] = 0.0
    assert unread_lines("p", dataclasses.replace(profile, arrays=profile.arrays | full)) == [
        "p: no softmax attention in layers 1-2, 5, whose shares are 0",
        "p: attention by weight only in layers 4, whose shares are 0",
    ]
