"""The samples of a measurement, the words that the lens looks for in each, and what is left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.data.sample import Sample
from harness.data.words import content_words, seem_english
from harness.errors import PhaseError
from harness.probe.lens_task import References, Words
from harness.probe.vocabulary import Vocabulary

NOT_ENGLISH = "the captions are not English, and recall counts English words"
NO_WORD = "no caption has an English content word that the model's vocabulary can spell"


class MeasureError(PhaseError):
    """A pair cannot be measured as asked; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, in one order.

    Attributes:
        samples: those that can be measured, as far as is known.
        references: the words of each sample, none where recall is left out.
        paired: True if clusters are items of two sides, which are left out together.
        left_out: why samples that were drawn are not measured, by their ids.
        no_recall: why recall is left out for all samples; empty where it is measured.
    """

    samples: tuple[Sample, ...]
    references: References
    paired: bool = False
    excluded: Mapping[str, str] = field(default_factory=dict)
    no_recall: str = ""

    def words(self, place: int) -> tuple[Words, Words]:
        """Return the vocabulary entries of one sample's own words, and of another's."""
        return self.references.words[place], self.references.chance_words[place]

    def part(self, places: Iterable[int]) -> References:
        """Return the words of some samples."""
        rows = tuple(places)
        return References(
            *(tuple(words[row] for row in rows) for words in (self.references.words, self.references.chance_words))
        )

    def without(self, reasons: Mapping[str, str]) -> Plan:
        """The same plan without some samples, given by id with their reasons, and without the other sides of these."""
        left_out = _with_sides(self.samples, reasons) if self.paired else reasons
        kept = [row for row, sample in enumerate(self.samples) if sample.id not in left_out]
        return replace(
            self,
            samples=tuple(self.samples[row] for row in kept),
            references=self.part(kept),
            excluded={**self.excluded, **left_out},
        )

    def require_two(self, dataset: str) -> None:
        """Raise MeasureError if fewer than two samples are left to measure."""
        if len(self.samples) < 2:
            left_out = f"; {len(self.excluded)} are left out, such as " if self.excluded else ""
            example = next((f"{name} ({why})" for name, why in self.excluded.items()), "")
            remedy = "the anisotropy adjustment needs at least two; raise --phase-samples"
            raise MeasureError(f"{len(self.samples)} samples of {dataset}{left_out}{example}: {remedy}")


def plan_measurement(samples: Sequence[Sample], vocabulary: Vocabulary, *, paired: bool = False) -> Plan:
    """Plan the measurement of the samples: which words are looked for, and which samples have none.

    A sample without a content word that the vocabulary can spell is left out, unless that is so of all of them or the
    captions are not English: then recall is left out instead. For the chance level each sample gets the words of the
    next one that shares no cluster with it.
    """
    no_recall = "" if seem_english(caption for sample in samples for caption in sample.captions) else NOT_ENGLISH
    own = [() if no_recall else vocabulary.references(content_words(sample.captions)) for sample in samples]
    if not no_recall and samples and not any(map(any, own)):
        no_recall = NO_WORD
    if no_recall:
        words: tuple[Words, ...] = ((),) * len(samples)
        return Plan(tuple(samples), References(words, words), paired, no_recall=no_recall)
    reasons = {
        sample.id: "no content word of its captions is in the model's vocabulary"
        if entries
        else "its captions have no English content word"
        for sample, entries in zip(samples, own, strict=True)
        if not any(entries)
    }
    plan = Plan(tuple(samples), References(tuple(own), tuple(own)), paired).without(reasons)
    words = plan.references.words
    return replace(plan, references=References(words, _chance(plan.samples, words)))


def _chance(samples: Sequence[Sample], own: Sequence[Words]) -> tuple[Words, ...]:
    """Return the words of the next sample of another cluster, for each sample."""
    chance = []
    for row, sample in enumerate(samples):
        others = [*range(row + 1, len(samples)), *range(row)]
        partner = next((other for other in others if samples[other].cluster != sample.cluster), [*others, row][0])
        chance.append(own[partner])
    return tuple(chance)


def _with_sides(samples: Sequence[Sample], reasons: Mapping[str, str]) -> dict[str, str]:
    """Return the reasons by id, with one for the other side of each item."""
    items = {sample.cluster: reasons[sample.id] for sample in samples if sample.id in reasons}
    return {
        sample.id: reasons.get(sample.id) or f"its item's other side is left out: {items[sample.cluster]}"
        for sample in samples
        if sample.cluster in items
    }
