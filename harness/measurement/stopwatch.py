"""Wall times of plain and hooked forward passes in alternating pairs, so that slow changes of speed cancel."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from math import exp

import torch

from harness.analysis.curves import FloatArray
from harness.analysis.timing import MIN_TIMING_PAIRS, TimingRatio, log_ratios, median_with_interval, timing_ratio
from harness.data.sample import Sample
from harness.data.words import content_words
from harness.models.forward_pass import prompt_options
from harness.models.prompts.prompt import encode
from harness.models.vlm import Vlm
from harness.probe.lens_task import LensTask, References, spread_points
from harness.probe.observation import observing
from harness.probe.readings import Readings
from harness.probe.separators import exclude_separators
from harness.probe.vocabulary import Vocabulary

WARM_UPS = 3
FEW_PAIRS = 5


def timing_references(vlm: Vlm, samples: Sequence[Sample]) -> References:
    """Return each sample's words and, for the chance level, those of the next sample, as a measurement uses them."""
    vocabulary = Vocabulary(vlm.processor.tokenizer, vlm.anatomy.vocabulary_size)
    words = tuple(vocabulary.references(content_words(sample.captions)) for sample in samples)
    return References(words=words, chance_words=(*words[1:], words[0]))


class ForwardPassTimer:
    """Timer of plain and measured forward passes over one batch.

    `plain()` runs the model alone, `hooked()` measures everything, `without_lens()` similarity and attention only.
    """

    def __init__(self, vlm: Vlm, samples: Sequence[Sample]) -> None:
        """Encode the batch and choose the lens's block of vocabulary entries, before anything is timed."""
        self._vlm = vlm
        batch = exclude_separators(vlm, encode(vlm.processor, samples, vlm.anatomy.image_positions))
        self._inputs = vlm.to_device(batch.inputs)
        self._groups = batch.groups.to(vlm.device)
        self._ids = [sample.id for sample in samples]
        references = timing_references(vlm, samples)
        dense = self._observe(LensTask(references, (), dense=True, points=spread_points(vlm.anatomy.depth)))
        self._task = LensTask(references, dense.learn_block(vlm.anatomy.vocabulary_size))

    def plain(self) -> None:
        """Run one forward pass of the model alone."""
        with torch.inference_mode():
            self._vlm.model(**self._inputs, **prompt_options(self._vlm.model))
        self._synchronise()

    def hooked(self) -> None:
        """Run one forward pass with similarity, attention and pruned lens; the readings end up on the CPU."""
        self._observe(self._task)
        self._synchronise()

    def without_lens(self) -> None:
        """Run one forward pass with similarity and attention; the readings end up on the CPU."""
        self._observe(None)
        self._synchronise()

    def ratio(self, pairs: int = MIN_TIMING_PAIRS) -> TimingRatio:
        """Return the median ratio of hooked to plain wall time over alternating pairs (ABBA), without the warm-ups.

        Args:
            pairs: number of pairs after the warm-ups, at least 21.

        Raises:
            ValueError: fewer than 21 pairs.
        """
        return timing_ratio(self._log_ratios(self.hooked, pairs))

    def ratio_without_lens(self, pairs: int = FEW_PAIRS) -> float:
        """Return the median ratio of wall time without the lens to plain wall time over alternating pairs."""
        return exp(median_with_interval(self._log_ratios(self.without_lens, pairs))[0])

    def _log_ratios(self, measured: Callable[[], None], pairs: int) -> FloatArray:
        plain, hooked = [], []
        for turn in range(pairs + WARM_UPS):
            # Every second pair runs in reverse order, so that effects of the first run on the second cancel.
            order = (measured, self.plain) if turn % 2 else (self.plain, measured)
            seconds = [_seconds(run) for run in order]
            plain.append(seconds[turn % 2])
            hooked.append(seconds[1 - turn % 2])
        return log_ratios(hooked[WARM_UPS:], plain[WARM_UPS:])

    def _observe(self, task: LensTask | None) -> Readings:
        with (
            torch.inference_mode(),
            observing(self._vlm.model, self._vlm.anatomy, self._groups, sample_ids=self._ids, lens=task) as observer,
        ):
            self._vlm.model(**self._inputs, **prompt_options(self._vlm.model))
            return observer.readings()

    def _synchronise(self) -> None:
        if self._vlm.device.type == "cuda":
            torch.cuda.synchronize(self._vlm.device)


def _seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
