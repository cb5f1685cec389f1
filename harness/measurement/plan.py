"""The samples of a measurement, the words that the lens looks for in each, and the excluded samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.data.sample import Sample
from harness.data.words import content_words, seem_english
from harness.errors import PhaseError
from harness.interface import option_text
from harness.probe.lens_task import References, Words
from harness.probe.vocabulary import Vocabulary

NOT_ENGLISH = "the captions are not English, and recall counts English words"
NO_WORD = "no caption has an English content word that the model's vocabulary can spell"


class MeasureError(PhaseError):
    """A pair cannot be measured as requested; the message states the reason and the remedy."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The samples to measure, in a fixed order.

    Attributes:
        samples: the samples that are not excluded so far.
        references: the words of each sample; empty if recall is omitted.
        paired: True if each cluster is an item of two samples, its sides, which are excluded together.
        excluded: the reasons why drawn samples are excluded, by id.
        no_recall: the reason why recall is omitted for all samples; empty if it is measured.
    """

    samples: tuple[Sample, ...]
    references: References
    paired: bool = False
    excluded: Mapping[str, str] = field(default_factory=dict)
    no_recall: str = ""

    def words(self, index: int) -> tuple[Words, Words]:
        """Return the vocabulary entries of a sample's own words and of its chance words."""
        return self.references.words[index], self.references.chance_words[index]

    def part(self, indices: Iterable[int]) -> References:
        """Return the words of the samples at these indices."""
        rows = tuple(indices)
        return References(
            *(tuple(words[row] for row in rows) for words in (self.references.words, self.references.chance_words))
        )

    def without(self, reasons: Mapping[str, str]) -> Plan:
        """Return the plan without the samples in `reasons`, by id, and without the other sides of their items."""
        excluded = _with_sides(self.samples, reasons) if self.paired else reasons
        remaining = [row for row, sample in enumerate(self.samples) if sample.id not in excluded]
        return replace(
            self,
            samples=tuple(self.samples[row] for row in remaining),
            references=self.part(remaining),
            excluded={**self.excluded, **excluded},
        )

    def require_two(self, dataset: str) -> None:
        """Raise MeasureError if fewer than two samples remain."""
        if len(self.samples) < 2:
            excluded = f"; {len(self.excluded)} are left out, such as " if self.excluded else ""
            example = next((f"{name} ({why})" for name, why in self.excluded.items()), "")
            remedy = f"the anisotropy adjustment needs at least two; raise {option_text('samples')}"
            raise MeasureError(f"{len(self.samples)} samples of {dataset}{excluded}{example}: {remedy}")


def plan_measurement(samples: Sequence[Sample], vocabulary: Vocabulary, *, paired: bool = False) -> Plan:
    """Return the plan of a measurement, with the words of each sample and without the samples that have none.

    A sample is excluded if the vocabulary cannot spell any content word of its captions. If this holds for all samples,
    or the captions are not English, recall is omitted instead. The chance words of a sample are those of the
    next sample of another cluster.
    """
    no_recall = "" if seem_english(caption for sample in samples for caption in sample.captions) else NOT_ENGLISH
    words = [() if no_recall else vocabulary.references(content_words(sample.captions)) for sample in samples]
    if not no_recall and samples and not any(map(any, words)):
        no_recall = NO_WORD
    if no_recall:
        empty: tuple[Words, ...] = ((),) * len(samples)
        return Plan(tuple(samples), References(empty, empty), paired, no_recall=no_recall)
    reasons = {
        sample.id: "no content word of its captions is in the model's vocabulary"
        if entries
        else "its captions have no English content word"
        for sample, entries in zip(samples, words, strict=True)
        if not any(entries)
    }
    plan = Plan(tuple(samples), References(tuple(words), tuple(words)), paired).without(reasons)
    remaining = plan.references.words
    return replace(plan, references=References(remaining, _chance(plan.samples, remaining)))


def _chance(samples: Sequence[Sample], words: Sequence[Words]) -> tuple[Words, ...]:
    """Return the words of the next sample of another cluster, for each sample."""
    chance = []
    for row, sample in enumerate(samples):
        others = [*range(row + 1, len(samples)), *range(row)]
        partner = next((other for other in others if samples[other].cluster != sample.cluster), [*others, row][0])
        chance.append(words[partner])
    return tuple(chance)


def _with_sides(samples: Sequence[Sample], reasons: Mapping[str, str]) -> dict[str, str]:
    """Return the reasons by id, extended to the other side of each item."""
    items = {sample.cluster: reasons[sample.id] for sample in samples if sample.id in reasons}
    return {
        sample.id: reasons.get(sample.id) or f"its item's other side is left out: {items[sample.cluster]}"
        for sample in samples
        if sample.cluster in items
    }
