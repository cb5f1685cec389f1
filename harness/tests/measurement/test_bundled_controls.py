"""The bundled model with randomly initialised parts, where the harness must not find the trained model's phases."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from harness.analysis.curves import summarise
from harness.analysis.segments import bounded_rises, confirm_segments, declared_prominence, persistence
from harness.measurement.measure import measure
from harness.models.anatomy import find_anatomy
from harness.models.bundled import scenes_llava
from harness.models.vlm import Vlm
from harness.profile.profile import Profile
from harness.storage.cache_directory import default_cache

pytestmark = pytest.mark.faults
SAMPLES = 32
CACHE = default_cache()


def trained() -> Vlm:
    model, processor = scenes_llava.load(CACHE)
    return Vlm("scenes-llava", model, processor, find_anatomy(model))


def untrained_projector() -> Vlm:
    """Return the model with its trained vision tower and an untrained projector."""
    vlm = trained()
    drawn = scenes_llava.untrained_vision(vlm.model.config, 0)
    projector = {name: tensor for name, tensor in drawn.items() if "multi_modal_projector" in name}
    assert projector
    vlm.model.load_state_dict(projector, strict=False)
    return vlm


def random_language_model() -> Vlm:
    """Return the model with its trained vision tower and projector and a random language model."""
    vlm = trained()
    language = vlm.model.model.language_model
    spread = float(language.config.initializer_range)
    generator = torch.Generator().manual_seed(0)
    for parameter in language.parameters():
        if parameter.ndim > 1:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
        else:
            parameter.fill_(1.0)
    return vlm


@cache
def profile_of(make: object) -> Profile:
    assert callable(make)
    return measure(make(), "scenes", samples=SAMPLES, controls=(), progress=False)


def confirmed_count(profile: Profile, share: float | None = None) -> int:
    """Return the number of confirmed segments at a share of the range, or at the declared prominence."""
    summary = summarise(profile["inter"], profile.clusters)
    spread = float(np.ptp(summary.mean))
    prominence = declared_prominence(summary.mean) if share is None else share * spread
    return confirm_segments(bounded_rises(summary), prominence).count


def test_the_declared_prominence_separates_the_trained_model_from_its_controls() -> None:
    segments = {
        make.__name__: confirmed_count(profile_of(make))
        for make in (trained, untrained_projector, random_language_model)
    }
    assert segments["trained"] == 4
    assert segments["untrained_projector"] < 4
    assert segments["random_language_model"] < 4


def test_smaller_prominences_do_not_separate_them() -> None:
    """At 0.01 the untrained projector has at least as many segments as the trained; hence the declared 10 %."""
    real, control = (profile_of(make)["inter"].mean(0) for make in (trained, untrained_projector))
    assert persistence(control).segment_count(0.01) >= persistence(real).segment_count(0.01)


@pytest.mark.parametrize("make", [untrained_projector, random_language_model])
def test_nothing_of_the_image_is_decoded_without_training(make: object) -> None:
    recall = profile_of(make)["recall_5"].mean(0)
    assert recall.max() < 0.05 < profile_of(trained)["recall_5"].mean(0)[-1]
