"""The phase figure draws what the profile holds."""

from __future__ import annotations

import io

import numpy as np
import pytest

from harness.report.figures import phase_figure
from harness.tests.test_checks import L, synthetic_profile

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
