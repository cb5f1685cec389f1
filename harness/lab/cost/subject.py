"""The model, inputs and reference words with which all contestants of the benchmark run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from harness.data.datasets import find_dataset
from harness.data.sample import Sample
from harness.errors import PhaseError
from harness.measurement.stopwatch import timing_references
from harness.models.anatomy import Anatomy
from harness.models.forward_pass import prompt_options
from harness.models.prompts.processor_call import even_groups
from harness.models.prompts.prompt import Batch, TokenGroups, UnevenPromptsError, encode
from harness.models.vlm import Vlm
from harness.probe.lens_task import LensTask, References
from harness.probe.observation import observing

# A few hundred tokens of one pass suffice to learn the block.
_LEARNT_TOKENS = 256
# As in a measurement, the block is learnt from samples other than the timed ones.
_LEARNT_SAMPLES = 2


class UnavailableError(PhaseError):
    """A contestant cannot run here; the message is the text of its cell in the table."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A model with one batch of inputs, on the model's device and in its dtype.

    inputs: keyword arguments of the model's forward pass. groups: bool (batch, tokens) each, on the model's device.
    task: the words of the batch and the block of vocabulary entries that the lens tries first. The block is learnt from
    other inputs, as in a long measurement.
    """

    model: Any
    anatomy: Anatomy
    inputs: Mapping[str, Any]
    groups: TokenGroups
    task: LensTask

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return torch.device(self.model.device)

    def forward(self, **options: Any) -> Any:
        """Run the full prompt with logits of the last token only; pass `options` to the model."""
        with torch.inference_mode():
            return self.model(**self.inputs, use_cache=False, logits_to_keep=1, **options)

    def observe(self, *, attention: bool, recall: bool) -> Any:
        """Return the readings of one observed forward pass and its lens, which is None without recall."""
        names = [f"sample {row}" for row in range(len(self.groups.real))]
        lens = self.task if recall else None
        observer = observing(self.model, self.anatomy, self.groups, sample_ids=names, lens=lens, attention=attention)
        with torch.inference_mode(), observer as observation:
            self.model(**self.inputs, use_cache=False, logits_to_keep=1)
            return observation.readings(), observation.lens

    def with_learnt_block(self, other: Subject) -> Subject:
        """Return the subject with a block learnt from `other`: the entries that a dense lens decodes most often.

        Args:
            other: the same model with other inputs and any words; at most 256 image tokens per sample are decoded.
        """
        image = other.groups.image
        ordinal = image.int().cumsum(1)
        spread = image & (ordinal % max(1, int(ordinal.max()) // _LEARNT_TOKENS) == 0)
        thinned = replace(
            other,
            groups=replace(other.groups, image=spread),
            task=LensTask(other.task.references, (), dense=True),
        )
        readings, _ = thinned.observe(attention=False, recall=True)
        return replace(self, task=replace(self.task, block=readings.learn_block(self.anatomy.vocabulary_size)))

    def synchronise(self) -> None:
        """Wait until the device has finished all queued work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def pair_subject(vlm: Vlm, dataset: str, batch: int) -> Subject:
    """Return a subject with a batch of a dataset's samples, its block learnt from two other samples.

    Raises:
        LookupError: the dataset does not exist.
        PromptError: see `encode`.
    """
    data = find_dataset(dataset)
    samples = data.draw(batch + _LEARNT_SAMPLES, 0, data.source())
    words = timing_references(vlm, samples)
    subjects = []
    for rows in (slice(_LEARNT_SAMPLES), slice(_LEARNT_SAMPLES, None)):
        encoded = encode(vlm.processor, samples[rows], vlm.anatomy.image_positions)
        task = LensTask(References(words.words[rows], words.chance_words[rows]), ())
        inputs, groups = vlm.to_device(encoded.inputs), encoded.groups.to(vlm.device)
        subjects.append(Subject(vlm.model, vlm.anatomy, inputs, groups, task))
    learning, timed = subjects
    return timed.with_learnt_block(learning)


def plain_seconds(vlm: Vlm, dataset: str, samples: int | None, batch_size: int) -> float:
    """Return the seconds of the model's forward passes alone over the samples of a dataset.

    Encoding the prompts is not timed. Prompts that cannot share a batch are divided as in a measurement.
    """
    data = find_dataset(dataset)
    drawn = data.draw(data.samples if samples is None else samples, 0, data.source())
    options = prompt_options(vlm.model)
    seconds = 0.0
    with torch.inference_mode():
        for first in range(0, len(drawn), batch_size):
            for batch in _batches(vlm, drawn[first : first + batch_size]):
                inputs = vlm.to_device(batch.inputs)
                begin = time.perf_counter()
                vlm.model(**inputs, **options)
                if vlm.device.type == "cuda":
                    torch.cuda.synchronize(vlm.device)
                seconds += time.perf_counter() - begin
    return seconds


def _batches(vlm: Vlm, samples: Sequence[Sample]) -> list[Batch]:
    try:
        return [encode(vlm.processor, samples, vlm.anatomy.image_positions)]
    except UnevenPromptsError:
        groups = even_groups(vlm.processor, samples)
        return [encode(vlm.processor, [samples[row] for row in group], vlm.anatomy.image_positions) for group in groups]
