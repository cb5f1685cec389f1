"""The first samples of a measurement with all self-checks, and samples that are recorded in full for figures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.data.sample import Sample
from harness.measurement.batch_size import AdaptiveBatchSize
from harness.measurement.batches import SampleError, image_fault, refused_images
from harness.measurement.plan import Plan
from harness.measurement.reading_keys import witness_tolerance
from harness.models.forward_errors import ForwardError
from harness.models.patches import input_image
from harness.models.prompts.chat import PromptError
from harness.models.prompts.hashes import negate_images
from harness.models.prompts.prompt import Batch, UnevenPromptsError, encode
from harness.models.vlm import Vlm
from harness.probe.forward import observe
from harness.probe.lens_task import LensTask, spread_points
from harness.probe.readings import Readings
from harness.probe.self_checks import (
    NotFiniteError,
    check_image_is_used,
    check_image_positions,
    check_repeatable,
    check_same_hits,
    collect_placeholder_masks,
)
from harness.probe.separators import exclude_separators
from harness.profile.pair import Pair
from harness.profile.profile import Drawing

# Number of first samples that every measurement checks, and records in full for figures.
DRAWN = 2


@dataclass(frozen=True, slots=True)
class FirstSamples:
    """The first samples of a plan: their readings, lens block and text of BOS, and their drawings if requested.

    `plan` excludes the samples refused so far; `reported` holds the ids whose exclusion was reported before.
    """

    plan: Plan
    reported: frozenset[str]
    readings: Readings
    block: tuple[int, ...]
    bos: str
    drawings: tuple[Drawing, ...]

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The samples with readings."""
        return self.plan.samples[: len(self.readings.similarity)]


def measure_first_samples(
    vlm: Vlm, plan: Plan, dataset: str, batch_size: int, say: Callable[[str], None], *, drawings: bool
) -> FirstSamples:
    """Measure and check the first samples that the processor accepts; exclude the refused samples before them.

    With `drawings` they are recorded in full.

    Raises:
        MeasureError: fewer than two samples remain.
        SampleError: the image of one of the first samples is unavailable.
        PromptError: the processor refuses the prompt for every image.
    """
    reported = frozenset(plan.excluded)
    # At most the requested batch size, because some prompts cannot be padded to one batch.
    adaptive_size = AdaptiveBatchSize(min(DRAWN, batch_size), vlm.name, say)
    while True:
        plan.require_two(dataset)
        for sample in plan.samples[:DRAWN]:
            if fault := image_fault(sample):
                raise SampleError(
                    f"{Pair(vlm.name, dataset)}: sample {sample.id} cannot be measured: {fault}; it is one of the "
                    f"first {DRAWN}, which verify the cached readings. Repair it, or remove it from the dataset, "
                    "and run again"
                )
        try:
            return adaptive_size.run(
                lambda size: FirstSamples(
                    plan,  # noqa: B023 - called at once
                    reported,
                    *measure_checked(vlm, plan, slice(0, size), in_full=drawings),  # noqa: B023
                )
            )
        except UnevenPromptsError:
            if adaptive_size.size == 1:
                raise
            adaptive_size.size = 1
        except PromptError:
            refused = refused_images(vlm, plan.samples[:DRAWN])
            if not refused:
                raise
            plan = plan.without(refused)


def collect_drawings(
    vlm: Vlm, plan: Plan, drawings: Sequence[Drawing], wanted: Collection[str], *, first: bool
) -> tuple[Drawing, ...]:
    """Return the drawings of the samples whose ids are in `wanted` and, with `first`, of the first samples."""
    drawn = {drawing.sample_id: drawing for drawing in drawings}
    return tuple(
        drawn.get(sample.id) or measure_checked(vlm, plan, slice(index, index + 1), in_full=True)[-1][0]
        for index, sample in enumerate(plan.samples)
        if (first and index < DRAWN) or sample.id in wanted
    )


def measure_checked(
    vlm: Vlm, plan: Plan, rows: slice, *, in_full: bool
) -> tuple[Readings, tuple[int, ...], str, tuple[Drawing, ...]]:
    """Measure samples with all self-checks; return readings, lens block, the text of BOS and drawings.

    The pruned lens is compared with the dense lens: `in_full` at all residual points, which gives the drawings, else at
    five of them.
    """
    samples = plan.samples[rows]
    batch = encode(vlm.processor, samples, vlm.anatomy.image_positions)
    parts = plan.part(range(*rows.indices(len(plan.samples))))
    points = range(vlm.anatomy.depth + 1) if in_full else spread_points(vlm.anatomy.depth)
    task = LensTask(parts, (), dense=True, points=() if in_full else tuple(points))
    with collect_placeholder_masks(vlm.model) as masks:
        dense = observe(vlm, batch, samples, task, checking=True)
    if not any(bool(mask.any()) for mask in masks):
        # Nothing else proves that this model has inserted image features into the prompts.
        _refuse_blind(vlm, batch, samples, dense)
    check_image_positions(vlm.model, vlm.anatomy.name, batch.groups.image, vlm.to_device(batch.inputs), masks)
    # `exclude_separators` may run the model without pixels; a user's own hooks should see a real pass first.
    separated = exclude_separators(vlm, batch)
    if separated is not batch:
        batch, dense = separated, observe(vlm, separated, samples, task, checking=True)
    block = dense.learn_block(vlm.anatomy.vocabulary_size)
    pruned = observe(vlm, batch, samples, LensTask(parts, block), checking=True)
    check_repeatable(
        vlm.anatomy.name,
        dense.similarity,
        pruned.similarity,
        [sample.id for sample in samples],
        witness_tolerance(vlm.dtype) if vlm.device.type == "cpu" else max(1e-3, witness_tolerance(vlm.dtype)),
        lambda: observe(vlm, batch, samples).similarity,
    )
    assert pruned.hits is not None
    ids = [sample.id for sample in samples]
    check_same_hits(vlm.anatomy.name, dense.hits, pruned.hits[:, list(points)], ids, points)
    drawings = tuple(_drawing(vlm, batch, dense, samples, row) for row in range(len(samples))) if in_full else ()
    return pruned, block, _bos(vlm.processor.tokenizer, batch, 0), drawings


def _refuse_blind(vlm: Vlm, batch: Batch, samples: Sequence[Sample], readings: Readings) -> None:
    """Raise SelfCheckError if the readings are the same with other images."""
    other = replace(batch, inputs=negate_images(batch.inputs))
    try:
        similarity = observe(vlm, other, samples, attention=False).similarity
    except (ForwardError, NotFiniteError):  # An error also shows that the model uses the image.
        return
    check_image_is_used(vlm.anatomy.name, readings.similarity, similarity, list(batch.inputs))


def _drawing(vlm: Vlm, batch: Batch, dense: Readings, samples: Sequence[Sample], row: int) -> Drawing:
    """Return the drawing of one sample of a batch, from the readings of the dense lens."""
    assert dense.norm_rows is not None
    assert dense.decoded is not None
    assert dense.decoded_last is not None
    real = batch.groups.real[row]
    entries, images = batch.inputs["input_ids"][row][real], batch.groups.image[row][real]
    tokenizer = vlm.processor.tokenizer
    sample = samples[row]
    seen = input_image(vlm, batch.inputs, row, len(samples), sample.load_image, int(batch.groups.image[row].sum()))

    def texts(entries: Any) -> tuple[str, ...]:
        return tuple(tokenizer.decode([entry]) for entry in entries.tolist() if entry >= 0)

    return Drawing(
        sample_id=sample.id,
        instruction=sample.instruction,
        captions=tuple(sample.captions),
        norm_rows=dense.norm_rows[row][:, real.numpy()],
        groups={name: getattr(batch.groups, name)[row][real].numpy() for name in ("image", "instruction", "other")},
        image_tokens=tuple(texts(point[:, 0]) for point in dense.decoded[row]),
        last_token=tuple(texts(point) for point in dense.decoded_last[row]),
        tokens=tuple(
            "" if is_image else tokenizer.decode([int(entry)]) for entry, is_image in zip(entries, images, strict=True)
        ),
        image=seen.pixels,
        grid=seen.grid,
        no_grid_reason=seen.reason,
        bos=_bos(tokenizer, batch, row),
    )


def _bos(tokenizer: Any, batch: Batch, row: int) -> str:
    """Return the text of the first token besides image tokens if it is BOS, else an empty string."""
    first = int((batch.groups.real[row] & ~batch.groups.image[row]).int().argmax())
    entry = int(batch.inputs["input_ids"][row][first])
    return str(tokenizer.decode([entry])) if entry == tokenizer.bos_token_id else ""
