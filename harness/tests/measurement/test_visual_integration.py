"""Visual integration is measured with the blank control only, on its samples, and calibrated with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from harness.data.sample import with_grey_image
from harness.measurement.conditions import calibrate
from harness.models.prompts.prompt import encode
from harness.models.vlm import Vlm
from harness.tests.support import literal
from harness.tests.support.tiny import N, cast_inputs, have_same_numbers, tiny_profile, tiny_samples

pytestmark = pytest.mark.usefixtures("tiny_data")


def last_states(vlm: Vlm, sample: object) -> list[object]:
    batch = encode(vlm.processor, [sample], vlm.anatomy.image_positions)  # type: ignore[list-item]
    with torch.inference_mode():
        states = vlm.model(**cast_inputs(vlm, batch), use_cache=False, output_hidden_states=True).hidden_states
    return [literal.to_float64(point)[0, -1] for point in states[:-1]]


def test_visual_integration_equals_its_definition(vlm: Vlm) -> None:
    profile = tiny_profile(vlm, controls=("blank",))
    assert profile["visual_integration"].shape == (N, vlm.anatomy.depth + 1)
    for row, sample in enumerate(tiny_samples(N)):
        points = zip(last_states(vlm, sample), last_states(vlm, with_grey_image(sample)), strict=True)
        expected = [1.0 - literal.cosine(real, blank) for real, blank in points]
        np.testing.assert_allclose(profile["visual_integration"][row, :-1], expected, atol=1e-5)
    # The embedding of the last token does not depend on the image.
    np.testing.assert_allclose(profile["visual_integration"][:, 0], 0.0, atol=1e-9)
    assert profile["visual_integration"][:, 1:].mean() > 1e-3


@pytest.mark.parametrize("controls", [(), ("noise",)])
def test_without_the_blank_control_there_is_no_visual_integration(vlm: Vlm, controls: tuple[str, ...]) -> None:
    assert "visual_integration" not in tiny_profile(vlm, controls=controls).arrays


def test_cached_readings_give_the_same_visual_integration(vlm: Vlm, tmp_path: Path) -> None:
    first = tiny_profile(vlm, controls=("blank",), cache=tmp_path)
    assert have_same_numbers(tiny_profile(vlm, controls=("blank",), cache=tmp_path), first)


def test_visual_integration_is_calibrated_if_it_was_measured(vlm: Vlm) -> None:
    for controls in ((), ("blank",)):
        profile = tiny_profile(vlm, controls=controls)
        result = calibrate(vlm, profile, lambda *_: vlm, seed=0, batch_size=N)
        for run in result.calibration.runs.values():
            assert ("visual_integration" in run.noise) is bool(controls)
            assert "step_image" in run.noise
