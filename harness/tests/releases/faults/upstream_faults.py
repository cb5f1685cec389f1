"""Table of regressions of transformers, each with the patch that plants it and the finding that it must give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.tests.releases.faults import planted_masks, planted_steps
from harness.tests.releases.faults.planted_masks import Patch

Plant = Callable[[Patch], None]
# A vision tower with one image size takes no wide pictures.
FIXED_SIZE = ("base", "two pictures", "long")


@dataclass(frozen=True, slots=True)
class StatesFault:
    """A fault that changes what a full pass computes.

    `source` is upstream's issue or change. `prompts` move, all others stay the same. `point` is the first residual
    point that moves, and `quantity` what moves first.
    """

    source: str
    model_type: str
    plant: Plant
    quantity: str
    point: int = 1
    prompts: tuple[str, ...] = (*FIXED_SIZE, "wide picture")


STATES_FAULTS = {
    "temporal positions of still images scaled": StatesFault(
        "transformers issue 45325", "qwen2_5_vl", planted_masks.scale_still_images, "attention"
    ),
    "mask of images lost": StatesFault(
        "transformers issue 39389", "gemma3", planted_masks.lose_image_mask, "states", prompts=FIXED_SIZE
    ),
    "images see later images": StatesFault(
        "transformers changes 38080 and 38295", "gemma3", planted_masks.join_images, "states", prompts=("two pictures",)
    ),
    "mask of images across the sliding window": StatesFault(
        "transformers change 46850", "gemma3", planted_masks.cross_window, "states", prompts=FIXED_SIZE
    ),
    "pads unmasked under left padding, also outside training": StatesFault(
        "after transformers issue 35855", "paligemma", planted_masks.unmask_pads, "attention", prompts=FIXED_SIZE
    ),
    "images see each other in the eager vision tower": StatesFault(
        "transformers change 33213", "qwen2_vl", planted_masks.add_boolean_mask, "vision features", point=0
    ),
    "positions in the vision tower rounded down": StatesFault(
        "transformers issue 41190",
        "smolvlm",
        planted_masks.shrink_coordinates,
        "vision features",
        point=0,
        prompts=FIXED_SIZE,
    ),
}


@dataclass(frozen=True, slots=True)
class UnnoticedFault:
    """A fault that the comparison of full passes cannot notice, with the reason."""

    source: str
    model_type: str
    plant: Plant
    reason: str


UNNOTICED_FAULTS = {
    "vision tower with another attention backend": UnnoticedFault(
        "transformers issue 35749",
        "qwen2_vl",
        planted_masks.compute_vision_eagerly,
        "the backends differ by rounding in 16 bits; tiny models compute in float32",
    ),
    "pads unmasked under left padding in training": UnnoticedFault(
        "transformers issue 35855",
        "paligemma",
        planted_masks.unmask_pads_in_training,
        "models are compared in evaluation mode",
    ),
    "seconds between frames missing, with pictures only": UnnoticedFault(
        "transformers issue 41152",
        "qwen2_5_vl",
        planted_steps.forget_seconds,
        "only generation with videos uses the seconds",
    ),
}
