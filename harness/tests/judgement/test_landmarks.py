"""The landmarks of a profile: their layers, the record and its inverse, and the published values."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np

from harness.analysis.turning_points import BoundaryInterval
from harness.judgement.landmarks import LANDMARKS, landmark_record, landmark_text, landmarks_of
from harness.models.registry import MODELS
from harness.profile.measures import MEASURES
from harness.report.details import detail_lines
from harness.report.outcomes import pair_outcomes
from harness.report.record import report_record
from harness.report.recorded_results import recorded_results
from harness.tests.support.judged import judge_profiles
from harness.tests.support.synthetic_profiles import L, N, replace_arrays, synthetic_profile

RISE = np.tile(np.where(np.arange(L + 1) >= 4, 0.5, 0.0), (N, 1)).astype(np.float32)


def test_every_landmark_names_a_measure_and_registered_models() -> None:
    for name, landmark in LANDMARKS.items():
        assert name == landmark.name
        assert landmark.measure in MEASURES
        assert set(landmark.published) <= set(MODELS)
        assert bool(landmark.published) is bool(landmark.source)


def test_landmarks_are_read_off_the_mean_curves() -> None:
    profile = replace_arrays(synthetic_profile(), visual_integration=RISE)
    layers = landmarks_of(profile)
    assert layers["integration_rise"] == BoundaryInterval(4.0, 4.0, 4.0)
    assert layers["exit"] == BoundaryInterval(10.0, 10.0, 10.0)
    assert list(layers) == list(LANDMARKS)


def test_a_landmark_of_an_absent_measure_is_absent() -> None:
    profile = synthetic_profile()
    fewer = {name: array for name, array in profile.arrays.items() if name != "visual_integration"}
    assert "integration_rise" not in landmarks_of(dataclasses.replace(profile, arrays=fewer))
    assert landmark_text(dataclasses.replace(profile, arrays={"inter": profile["inter"]})) == ""


def test_the_published_layer_stands_beside_the_measured() -> None:
    profile = replace_arrays(
        synthetic_profile(), visual_integration=RISE, step_image=np.full((N, L), 0.5, dtype=np.float32)
    )
    text = landmark_text(profile)
    assert text.startswith("visual integration rises most at layer 4; image states settle at no layer; the last ")
    llava = dataclasses.replace(profile, model="llava-1.5-7b")
    assert "rises most at layer 4 (published: 9, arXiv 2509.23050)" in landmark_text(llava)
    record = landmark_record(llava)
    assert record["integration_rise"] == {"layer": [4.0, 4.0, 4.0], "published": 9}
    assert record["image_settled"] == {"layer": [None] * 3, "published": None}


def test_landmarks_are_reported_recorded_and_restored(tmp_path: Path) -> None:
    results = judge_profiles(tmp_path, replace_arrays(synthetic_profile(), visual_integration=RISE))
    (outcome,) = pair_outcomes(results)
    lines = " ".join(str(line.text) for line in detail_lines(results, [outcome], 200))
    assert "visual integration rises most at layer 4" in lines
    (restored,) = recorded_results(report_record(results)).profiles.values()
    assert landmark_text(restored) == landmark_text(outcome.profile)
    layers = landmarks_of(restored)
    assert not any(math.isnan(layer.estimate) for layer in layers.values())
