"""Boundaries as shares of the depth: the numbers in layers over L, for models of any depth."""

from __future__ import annotations

import pytest

from harness.analysis.turning_points import BoundaryInterval
from harness.phases import phases_of, relative_depth
from harness.tests.test_checks import L, synthetic_profile


def test_a_boundary_is_divided_by_the_number_of_layers() -> None:
    found = relative_depth(BoundaryInterval(16.0, 12.0, 32.0), 32)
    assert found == BoundaryInterval(0.5, 0.375, 1.0)


def test_models_of_other_depth_with_the_same_shape_have_the_same_relative_depth() -> None:
    shallow, deep = (relative_depth(BoundaryInterval(depth / 2, depth / 4, depth), depth) for depth in (8, 80))
    assert shallow == deep


def test_no_layers_are_no_depth() -> None:
    with pytest.raises(ValueError, match="relative to 0 layers"):
        relative_depth(BoundaryInterval(0.0, 0.0, 0.0), 0)


def test_the_phases_of_a_profile_tell_both() -> None:
    told = phases_of(synthetic_profile())
    relative = told["relative_depth"]
    assert relative["depth"] == L
    for name in ("turning_points", "half_heights"):
        for layers, shares in zip(told[name], relative[name], strict=True):
            assert shares == [None if layer is None else pytest.approx(layer / L, rel=1e-5) for layer in layers]
