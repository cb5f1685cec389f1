"""The landmarks of a profile: layers read off its measures, with intervals and the published values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.analysis.depth_landmarks import Locate, landmark_interval, lasting_point, settling_layer, steepest_rise
from harness.analysis.turning_points import BoundaryInterval
from harness.judgement.phases import interval_record
from harness.profile.profile import Profile, as_floats
from harness.profile.recorded_profile import RecordedProfile


@dataclass(frozen=True, slots=True)
class Landmark:
    """A layer that is read off the mean curve of a measure.

    `published` maps registered models to the layer that a publication reports, and `source` names the publication.
    """

    name: str
    title: str
    measure: str
    locate: Locate
    published: Mapping[str, int] = field(default_factory=dict)
    source: str = ""

    def text(self, layer: BoundaryInterval, model: str) -> str:
        """Return the landmark of a model in words: 'image states settle at layer 3 [3-13]'."""
        if math.isnan(layer.estimate):
            return f"{self.title} at no layer"
        stated = f" (published: {self.published[model]}, {self.source})" if model in self.published else ""
        return f"{self.title} at layer {layer:g}{stated}"


#: The landmarks by name, in the order of the output. Layer l is residual point l, its output.
LANDMARKS = {
    landmark.name: landmark
    for landmark in (
        Landmark(
            "integration_rise",
            "visual integration rises most",
            "visual_integration",
            steepest_rise,
            # `get_vip` of the code at github.com/deeplearning-wisc/understanding_lp: an index of hidden states, with 0
            # for the embeddings. There the other prompt has no image at all, and the last state is normed.
            {"llava-1.5-7b": 9},
            "arXiv 2509.23050",
        ),
        Landmark("image_settled", "image states settle", "step_image", settling_layer),
        Landmark("exit", "the last token's best guess becomes final", "exit_agreement", lasting_point),
    )
}


def landmarks_of(profile: Profile) -> dict[str, BoundaryInterval]:
    """Return the landmarks by name with 99 % intervals; those of measures that the profile lacks are absent.

    A landmark is NaN if no layer meets its definition. A profile from a record returns the recorded ones.
    """
    if isinstance(profile, RecordedProfile):
        return dict(profile.landmarks)
    return {
        name: landmark_interval(as_floats(profile[landmark.measure]), landmark.locate, profile.clusters)
        for name, landmark in LANDMARKS.items()
        if profile.measured((landmark.measure,))
    }


def landmark_record(profile: Profile) -> dict[str, Any]:
    """Return the landmarks as JSON types: `layer` with the ends of its interval, and the `published` layer or null."""
    return {
        name: {"layer": interval_record(layer), "published": LANDMARKS[name].published.get(profile.model)}
        for name, layer in landmarks_of(profile).items()
    }


def landmark_text(profile: Profile) -> str:
    """Return the landmarks of a profile in one line; empty if it has none."""
    return "; ".join(LANDMARKS[name].text(layer, profile.model) for name, layer in landmarks_of(profile).items())
