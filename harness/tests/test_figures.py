"""The phase figure draws what the profile holds."""

from __future__ import annotations

import dataclasses
import io
import sys
from pathlib import Path

import numpy as np
import pytest

import harness
from harness.analysis.turning_points import turning_points
from harness.report.figures import main, phase_figure
from harness.tests.test_checks import L, changed, synthetic_profile
from harness.tests.test_pretrained import save_tiny

pytest.importorskip("matplotlib", reason="figures need the extra: pip install 'vlm-phase-harness[figures]'")


def test_four_panels_show_the_mean_curves() -> None:
    profile = synthetic_profile()
    figure = phase_figure(profile)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [title.split()[0] for title in titles] == ["Inter-modal", "Intra-modal", "Norm-based", "LogitLens"]
    curves = {line.get_label(): line for line in figure.axes[0].get_lines()}
    np.testing.assert_allclose(curves["image and text tokens"].get_ydata(), profile["inter"].mean(0), rtol=1e-6)
    assert list(curves["after the final norm"].get_xdata()) == [L]
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    assert buffer.getvalue().startswith(b"\x89PNG")


def test_two_models_of_any_depth_lie_over_one_relative_depth() -> None:
    profile = synthetic_profile()
    every_other = {
        name: array[:, ::2] for name, array in profile.arrays.items() if array.ndim > 1 and array.shape[1] == L + 1
    }
    half = dataclasses.replace(changed(profile, **every_other), model="half")
    figure = harness.phase_figure(profile, against=half)
    (axes,) = figure.axes
    curves = {line.get_label(): line for line in axes.get_lines()}
    for one, label in ((profile, f"made, {L} layers"), (half, f"half, {L // 2} layers")):
        np.testing.assert_allclose(curves[label].get_xdata(), np.linspace(0.0, 1.0, one.depth + 1))
        np.testing.assert_allclose(curves[label].get_ydata(), one["inter"].mean(0), rtol=1e-6)
    # The middle 80 % of the samples of each, and a mark at every turn.
    assert len(axes.collections) == 2
    marks = [line.get_xdata() for line in axes.get_lines() if line.get_marker() == "o"]
    turns = [np.array(turning_points(one["inter"].mean(0), 4)) / one.depth for one in (profile, half)]
    for found, expected in zip(marks, turns, strict=True):
        np.testing.assert_allclose(found, expected)
    assert len({line.get_color() for line in curves.values()}) >= 2
    assert figure.get_suptitle() == "made against half on curves: 64 samples"


@pytest.mark.usefixtures("tiny_data")
def test_the_command_draws_two_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        save_tiny(tmp_path / name)
    monkeypatch.setenv("VLM_PHASE_CACHE", str(tmp_path / "cache"))
    picture = tmp_path / "both.png"
    arguments = [str(tmp_path / "one"), "tiny", str(picture), "--samples", "4", "--against", str(tmp_path / "two")]
    monkeypatch.setattr(sys, "argv", ["figures", *arguments])
    main()
    assert picture.read_bytes().startswith(b"\x89PNG")
