"""A model with one batch of inputs and the words to look for in it, on which contestants race."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from harness.data.datasets import find_dataset
from harness.errors import PhaseError
from harness.measurement.stopwatch import timing_references
from harness.models.anatomy import Anatomy
from harness.models.prompts.prompt import TokenGroups, encode
from harness.models.vlm import Vlm
from harness.probe.lens_task import LensTask, References
from harness.probe.observation import observing

# The block settles what it is learnt from, so a few hundred tokens of one pass are plenty.
_LEARNT_TOKENS = 256
# As in a measurement: the block is learnt from so many samples, which are not the ones that are timed.
_LEARNT_SAMPLES = 2


class AbsentError(PhaseError):
    """A contestant cannot run here; the message is what its row says."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A model with one batch, on its device and in its type: what every contestant is given.

    inputs: what the model is called with. groups: bool (batch, tokens) each, on the model's device. task: the words of
    the batch and the block that the lens tries first, learnt from other inputs as in a long measurement.
    """

    model: Any
    anatomy: Anatomy
    inputs: Mapping[str, Any]
    groups: TokenGroups
    task: LensTask

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return torch.device(self.model.device)

    def forward(self, **options: Any) -> Any:
        """What the model gives for the whole prompt, logits of the last token only; `options` are its own."""
        with torch.inference_mode():
            return self.model(**self.inputs, use_cache=False, logits_to_keep=1, **options)

    def observed(self, *, attention: bool, recall: bool) -> Any:
        """Return the readings of one observed forward pass, and the lens that read it (None without recall)."""
        names = [f"sample {row}" for row in range(len(self.groups.real))]
        lens = self.task if recall else None
        observer = observing(self.model, self.anatomy, self.groups, sample_ids=names, lens=lens, attention=attention)
        with torch.inference_mode(), observer as seen:
            self.model(**self.inputs, use_cache=False, logits_to_keep=1)
            return seen.readings(), seen.lens

    def learnt_from(self, other: Subject) -> Subject:
        """Return the subject with the entries as its block that a dense lens decodes most often in one pass of `other`.

        Args:
            other: the same model with other inputs and any words; at most 256 image tokens a sample are decoded.
        """
        image = other.groups.image
        ordinal = image.int().cumsum(1)
        spread = image & (ordinal % max(1, int(ordinal.max()) // _LEARNT_TOKENS) == 0)
        thinned = replace(
            other,
            groups=replace(other.groups, image=spread),
            task=LensTask(other.task.references, (), dense=True),
        )
        readings, _ = thinned.observed(attention=False, recall=True)
        return replace(self, task=replace(self.task, block=readings.learn_block(self.anatomy.vocabulary_size)))

    def synchronise(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def pair_subject(vlm: Vlm, dataset: str, batch: int) -> Subject:
    """Return a batch of samples of a dataset, with the block learnt from two others.

    Raises:
        LookupError: no such dataset.
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
    return timed.learnt_from(learning)
