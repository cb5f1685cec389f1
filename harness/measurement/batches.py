"""The forward passes over a pair's samples: prepared ahead, kept, shared out, none lost by another's fault."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tqdm import tqdm

from harness.data.sample import Sample
from harness.errors import PhaseError, first_line
from harness.measurement.arrays import reading_rows
from harness.measurement.batch_size import Portions
from harness.measurement.prefetch import ahead
from harness.measurement.ranks import processes
from harness.measurement.reading_cache import ReadingStore
from harness.models.forward_errors import ForwardError
from harness.models.prompts.hashes import InputHashes
from harness.models.prompts.lengths import expected_lengths
from harness.models.prompts.prompt import Batch, PromptError, UnevenPromptsError, encode, picture_refusal
from harness.models.vlm import Vlm
from harness.probe.observation import Readings
from harness.probe.self_checks import NotFiniteError
from harness.probe.separators import without_separators
from harness.profile.profile import Array

Row = dict[str, Array]

# Batches that are put in order of length together; a later, longer run keeps whole windows of an earlier one.
_WINDOW = 8
# After so many the fault is not the samples', and the rest need not be tried.
_MOST_FAULTS = 16
_NAMED = 3


class SampleError(PhaseError):
    """Some samples cannot be measured; the message names them, and says what became of the others."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """Some samples, by their places, with their model inputs.

    Others have none: `faults` says why by place, `refused` of those whose picture the processor does not take.
    """

    at: tuple[int, ...]
    batch: Batch | None
    faults: dict[int, str] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What one batch gave: the name of every place, a row for every name that has one, and what went wrong by place."""

    names: dict[int, str]
    rows: dict[str, Row]
    faults: dict[int, str]
    refused: dict[int, str]


@dataclass(frozen=True, slots=True)
class PassResults:
    """The rows of the samples in their order, and by place why the processor refuses the pictures of others."""

    rows: list[Row]
    refused: dict[int, str]


class Passes:
    """Takes the samples of one measurement through its model, batch by batch."""

    def __init__(
        self, vlm: Vlm, store: ReadingStore, *, batch_size: int, hide: bool, say: Callable[[str], None]
    ) -> None:
        """Begin a measurement.

        Args:
            vlm: the model.
            store: where readings are kept.
            batch_size: samples per forward pass, fewer where memory runs out.
            hide: whether to show no bar.
            say: takes a line on what is not as it was asked for.
        """
        self.vlm, self.store, self.hide = vlm, store, hide
        self.portions = Portions(batch_size, vlm.name, say)
        self.batch_size = batch_size
        # A tokenizer holds how it pads, and batches are made ahead in another thread than halves of one are.
        self._tokenizing = threading.Lock()

    def over(
        self,
        samples: Sequence[Sample],
        what: str,
        name: Callable[[int, InputHashes], str],
        read: Callable[[Batch, Sequence[int]], Readings],
    ) -> PassResults:
        """One row of readings a sample, in their order, but for those whose picture the processor refuses.

        The next batches are prepared while one goes through the model, each of prompts of like length. Batches of which
        everything is kept are not measured again. Rows of one name are measured once. Several processes share the
        batches and all return all rows.

        Args:
            samples: what is measured.
            what: for the bar and for messages.
            name: what the readings of a sample are kept under, from its place and its input hashes.
            read: observes a batch, given with the places of its samples.

        Raises:
            SampleError: samples whose picture cannot be had, whose forward pass fails, or whose readings are NaN or
                infinite. All others are measured first and kept.
            MemoryShortageError: memory runs out with one sample.
            ProcessError: this process is to end, or another is lost.
            PromptError, SelfCheckError, AttentionError: see there; they are of the model, not of a sample.
        """

        def outcomes() -> list[_Outcome]:
            seen: dict[str, Row] = {}
            found: list[_Outcome] = []
            share = processes().share(-(-len(samples) // self.batch_size))
            with tqdm(total=len(samples), desc=what, unit="sample", leave=False, disable=self.hide) as bar:
                for prepared in ahead(self._prepared(samples, share)):
                    processes().go_on(f"{what}, batch {len(found) + 1} of {len(share)}")
                    found.append(self._outcome(samples, prepared, name, read, seen))
                    # The whole run's progress, as far as this process can tell.
                    bar.update(min(len(prepared.at) * processes().count, len(samples) - bar.n))
                    if sum(len(outcome.faults) for outcome in found) >= _MOST_FAULTS:
                        break
            return found

        gathered = processes().gathered(what, outcomes)
        names = dict(pair for outcome in gathered for pair in outcome.names.items())
        faults = dict(pair for outcome in gathered for pair in outcome.faults.items())
        refused = dict(pair for outcome in gathered for pair in outcome.refused.items())
        rows: dict[str, Row] = {}
        for outcome in gathered:
            # The first batch that has a name decides, as where one process measures it once.
            rows = outcome.rows | rows
        if not faults:
            # Which samples go side by side is told from their pictures, by each process for itself.
            left = [place for place in range(len(samples)) if place not in names and place not in refused]
            faults = dict.fromkeys(left, "its batch is composed otherwise in another process, which could not read all")
        if faults:
            raise SampleError(self._named(samples, what, faults, sum(name in rows for name in names.values())))
        return PassResults([rows[names[place]] for place in sorted(names)], refused)

    def _prepared(self, samples: Sequence[Sample], share: Sequence[int]) -> Iterator[_Prepared]:
        """The batches of this process's share, in order, encoded."""
        mine = set(share)
        for number, at in enumerate(self._batches(samples)):
            if number in mine:
                yield from self._encoded(samples, at)

    def _batches(self, samples: Sequence[Sample]) -> Iterator[tuple[int, ...]]:
        """Places of samples that go side by side: of like length, as far as that can be told."""
        size = self.batch_size
        for start in range(0, len(samples), _WINDOW * size):
            window = range(start, min(start + _WINDOW * size, len(samples)))
            order: Sequence[int] = window
            if size > 1:
                with self._tokenizing:
                    lengths = expected_lengths(self.vlm.processor, samples[window.start : window.stop])
                order = sorted(window, key=lambda place: lengths[place - start])
            for first in range(0, len(order), size):
                yield tuple(order[first : first + size])

    def _encoded(self, samples: Sequence[Sample], at: tuple[int, ...]) -> Iterator[_Prepared]:
        """Yield the samples at these places as one batch, or as several where their prompts cannot be padded."""
        try:
            yield _Prepared(at, self._encode([samples[place] for place in at]))
        except UnevenPromptsError:
            groups = self._even_groups(samples, at)
            if len(groups) == 1:
                raise
            for group in groups:
                yield from self._encoded(samples, group)
        except Exception as error:  # They raise what they like; what is no picture's fault is raised on.
            faults = {place: fault for place in at if (fault := picture_fault(samples[place]))}
            refused = self._refused(samples, at) if not faults and isinstance(error, PromptError) else {}
            if not faults and not refused:
                raise
            yield _Prepared((*faults, *refused), None, faults, refused)
            whole = tuple(place for place in at if place not in faults and place not in refused)
            if whole:
                yield from self._encoded(samples, whole)

    def _refused(self, samples: Sequence[Sample], at: Sequence[int]) -> dict[int, str]:
        """Why the processor refuses the pictures of some places, by place."""
        with self._tokenizing:
            reasons = refused_pictures(self.vlm, [samples[place] for place in at])
        return {place: reasons[samples[place].id] for place in at if samples[place].id in reasons}

    def _even_groups(self, samples: Sequence[Sample], at: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Return the places in groups of one instruction and one expected length, in the order of their first one.

        The instruction belongs to the key because another text encoder, such as a Q-Former's, counts other tokens.
        """
        part = [samples[place] for place in at]
        with self._tokenizing:
            lengths = expected_lengths(self.vlm.processor, part)
        groups: dict[tuple[str, int], list[int]] = {}
        for place, sample, length in zip(at, part, lengths, strict=True):
            groups.setdefault((sample.instruction, length), []).append(place)
        return [tuple(group) for group in groups.values()]

    def _encode(self, samples: Sequence[Sample]) -> Batch:
        with self._tokenizing:
            return encode(self.vlm.processor, samples, self.vlm.anatomy.image_positions)

    def _outcome(
        self,
        samples: Sequence[Sample],
        prepared: _Prepared,
        name: Callable[[int, InputHashes], str],
        read: Callable[[Batch, Sequence[int]], Readings],
        seen: dict[str, Row],
    ) -> _Outcome:
        whole = [place for place in prepared.at if place not in prepared.faults]
        outcome = _Outcome({}, {}, dict(prepared.faults), prepared.refused)
        if prepared.batch is None:
            return outcome
        outcome.names.update(
            (place, name(place, hashes)) for place, hashes in zip(whole, prepared.batch.hashes, strict=True)
        )
        missing = [key for key in dict.fromkeys(outcome.names.values()) if key not in seen]
        kept = self.store.read(missing) if missing else []
        if kept is None:
            kept_rows = self._measured(samples, prepared.batch, whole, read, outcome.faults)
            measured = {outcome.names[place]: row for place, row in kept_rows.items()}
            missing = [key for key in missing if key in measured]
            kept = [measured[key] for key in missing]
            self.store.write(missing, kept)
        seen.update(zip(missing, kept, strict=True))
        outcome.rows.update((key, seen[key]) for key in outcome.names.values() if key in seen)
        return outcome

    def _measured(
        self,
        samples: Sequence[Sample],
        batch: Batch,
        places: Sequence[int],
        read: Callable[[Batch, Sequence[int]], Readings],
        faults: dict[int, str],
    ) -> dict[int, Row]:
        """The rows of a batch by place, without those that `faults` now tells of."""

        def work(part: Sequence[int]) -> list[Row | None]:
            own = batch if len(part) == len(places) else self._encode([samples[place] for place in part])
            stopped = ""
            try:
                readings, wrong = read(without_separators(self.vlm, own), part), {}
            except NotFiniteError as error:
                readings, wrong = error.readings, error.faults
            except ForwardError as error:
                stopped = str(error)
            if stopped and len(part) > 1:
                # One sample may have stopped the whole batch.
                return [row for place in part for row in work([place])]
            if stopped:
                faults[part[0]] = stopped
                return [None]
            faults.update((part[row], sentence) for row, sentence in wrong.items())
            return [None if row in wrong else found for row, found in enumerate(reading_rows(readings, own.hashes))]

        found = self.portions.read(places, work)
        return {place: row for place, row in zip(places, found, strict=True) if row is not None}

    def _named(self, samples: Sequence[Sample], what: str, faults: dict[int, str], good: int) -> str:
        """The sentence of what is wrong with which samples."""
        told = [f"sample {samples[place].id}: {faults[place]}" for place in sorted(faults)]
        more = f" and {len(told) - _NAMED} more" if len(told) > _NAMED else ""
        several = len(faults) > 1
        kept = f"the readings of {good} others are kept" if self.store.keeps else "nothing is kept"
        tried = " (the rest were not tried)" if len(faults) >= _MOST_FAULTS else ""
        return (
            f"{what}: {len(faults)} of {len(samples)} samples cannot be measured{tried}: {'; '.join(told[:_NAMED])}"
            f"{more}; {kept}: mend {'them' if several else 'it'}, or take {'them' if several else 'it'} out of the "
            "dataset, and run again"
        )


def refused_pictures(vlm: Vlm, samples: Sequence[Sample]) -> dict[str, str]:
    """Why a model's processor refuses the pictures of some samples, by their ids; no word of those that it takes."""
    reasons = {sample.id: picture_refusal(vlm.processor, sample, vlm.anatomy.image_positions) for sample in samples}
    return {name: reason for name, reason in reasons.items() if reason}


def picture_fault(sample: Sample) -> str:
    """Why a sample's picture cannot be had; empty where it can."""
    try:
        sample.picture()
    except MemoryError:
        raise
    except Exception as error:  # A dataset's own code raises what it likes.
        return first_line(error)
    return ""
