"""The embedded pairs as subjects: their own samples, words and prompts."""

from __future__ import annotations

from harness.data.datasets import find_dataset
from harness.lab.cost.subject import Subject, learnt_block
from harness.measurement.stopwatch import references_of
from harness.models.prompts.prompt import encode
from harness.models.vlm import Vlm
from harness.probe.lens_task import LensTask, References

# As in a measurement: the block is learnt from so many samples, which are not the ones that are timed.
_LEARNT_FROM = 2


def pair_subject(vlm: Vlm, dataset: str, batch: int) -> Subject:
    """A batch of samples of a dataset, with the block learnt from two others.

    Raises:
        LookupError: no such dataset.
        PromptError: see `encode`.
    """
    data = find_dataset(dataset)
    drawn = data.draw(batch + _LEARNT_FROM, 0, data.source())
    references = references_of(vlm, drawn)
    parts = []
    for at in (slice(_LEARNT_FROM), slice(_LEARNT_FROM, None)):
        encoded = encode(vlm.processor, drawn[at], vlm.anatomy.image_positions)
        parts.append(
            (vlm.given(encoded.inputs), encoded.groups.to(vlm.device), references.own[at], references.chance[at])
        )
    (learning, learning_groups, *_), (inputs, groups, own, chance) = parts
    block = learnt_block(vlm.model, vlm.anatomy, learning, learning_groups, References(*parts[0][2:]))
    return Subject(vlm.model, vlm.anatomy, inputs, groups, LensTask(References(own, chance), block))
