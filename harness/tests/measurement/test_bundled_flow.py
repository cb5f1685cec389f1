"""The knockout of the bundled models: where the image enters, and the stored losses of the same samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.baselines.store import read_baseline
from harness.judgement.phases import phase_reading
from harness.measurement.measure import measure
from harness.models.registry import find_model
from harness.models.vlm import load_vlm
from harness.profile.measures import KNOCKOUT_FAMILY
from harness.storage.cache_directory import default_cache
from harness.storage.project_files import bundled_baselines

pytestmark = pytest.mark.faults
SAMPLES = 16


@pytest.mark.parametrize(("model", "share"), [("scenes-llava", (0.45, 0.65)), ("scenes-instructblip", (1.0, 1.4))])
def test_the_image_enters_in_layers_21_to_25(model: str, share: tuple[float, float], tmp_path: Path) -> None:
    vlm = load_vlm(find_model(model), cache=default_cache())
    profile = measure(vlm, "scenes", samples=SAMPLES, knockout=True, drawings=False, word_order=False, cache=tmp_path)
    knockout = phase_reading(profile).knockout
    assert knockout is not None
    later = {loss.layers: loss for loss in knockout.paths["later"]}
    entry, last = later[21, 25].share, later[26, 30].share
    assert entry is not None
    assert last is not None
    assert share[0] <= entry <= share[1]
    assert last < 0.02
    assert knockout.last_needed is not None
    assert 24 <= knockout.last_needed.estimate <= 26
    # The instruction takes no part in it.
    assert abs(knockout.paths["instruction"][4].effect) < 0.05
    stored = read_baseline(bundled_baselines() / model / "scenes.json").profile.select(profile.sample_ids)
    for name in ("knockout", "knockout_answer", "knockout_instruction"):
        assert np.abs(profile[name] - stored[name]).max() < 5e-3, name
    assert stored.measured((KNOCKOUT_FAMILY,))
