"""The samples that are drawn in full, with every check of the measurement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.data.sample import Sample
from harness.measurement.arrays import drawing
from harness.measurement.plan import Plan
from harness.measurement.reading_keys import witness_tolerance
from harness.models.forward_errors import ForwardError
from harness.models.prompts.hashes import negated_pictures
from harness.models.prompts.prompt import Batch, encode
from harness.models.vlm import Vlm
from harness.probe.forward import observe
from harness.probe.lens_task import LensTask
from harness.probe.observation import Readings
from harness.probe.self_checks import (
    NotFiniteError,
    check_image_positions,
    check_picture_reaches,
    check_repeatable,
    check_same_hits,
    hearing_placeholders,
)
from harness.probe.separators import without_separators
from harness.profile.profile import Drawing


def draw_in_full(vlm: Vlm, plan: Plan, at: slice) -> tuple[Readings, tuple[int, ...], tuple[Drawing, ...]]:
    """Measures the drawn samples with the dense lens and all self-checks; learns the block from what they decode."""
    samples = plan.samples[at]
    batch = encode(vlm.processor, samples, vlm.anatomy.image_positions)
    parts = plan.part(range(*at.indices(len(plan.samples))))
    task = LensTask(parts, (), dense=True)
    with hearing_placeholders(vlm.model) as masks:
        dense = observe(vlm, batch, samples, task, checking=True)
    if not any(bool(mask.any()) for mask in masks):
        # Nothing else shows that this model has put image features into the prompts.
        _refuse_blind(vlm, batch, samples, dense)
    check_image_positions(vlm.model, vlm.anatomy.name, batch.groups.image, vlm.given(batch.inputs), masks)
    # The trial without pixels comes after a real pass, which is what a user's own hooks see first.
    separated = without_separators(vlm, batch)
    if separated is not batch:
        batch, dense = separated, observe(vlm, separated, samples, task, checking=True)
    block = dense.block(vlm.anatomy.vocabulary_size)
    pruned = observe(vlm, batch, samples, LensTask(parts, block), checking=True)
    check_repeatable(
        vlm.anatomy.name,
        dense.similarity,
        pruned.similarity,
        [sample.id for sample in samples],
        witness_tolerance(vlm.dtype) if vlm.device.type == "cpu" else max(1e-3, witness_tolerance(vlm.dtype)),
        lambda: observe(vlm, batch, samples).similarity,
    )
    check_same_hits(vlm.anatomy.name, dense.hits, pruned.hits, [sample.id for sample in samples])
    return pruned, block, tuple(drawing(vlm, batch, dense, samples, row) for row in range(len(samples)))


def _refuse_blind(vlm: Vlm, batch: Batch, samples: Sequence[Sample], readings: Readings) -> None:
    """Raise SelfCheckError if the readings stay the same with other pictures."""
    other = replace(batch, inputs=negated_pictures(batch.inputs))
    try:
        similarity = observe(vlm, other, samples, attention=False).similarity
    except (ForwardError, NotFiniteError):  # Such a model looks at the picture.
        return
    check_picture_reaches(vlm.anatomy.name, readings.similarity, similarity, list(batch.inputs))
