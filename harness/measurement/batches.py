"""The forward passes over a pair's samples: prepared ahead, kept, shared out, none lost by another's fault."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from tqdm import tqdm

from harness.data.sample import Sample
from harness.errors import PhaseError, first_line
from harness.measurement.arrays import reading_rows
from harness.measurement.batch_size import AdaptiveBatchSize
from harness.measurement.ranks import processes
from harness.measurement.reading_cache import ReadingCache
from harness.models.forward_errors import ForwardError
from harness.models.prompts.chat import PromptError
from harness.models.prompts.hashes import InputHashes
from harness.models.prompts.processor_call import expected_lengths
from harness.models.prompts.prompt import Batch, UnevenPromptsError, encode, image_refusal
from harness.models.vlm import Vlm
from harness.probe.observation import Readings
from harness.probe.self_checks import NotFiniteError
from harness.probe.separators import exclude_separators
from harness.profile.profile import Array

T = TypeVar("T")
Row = dict[str, Array]
Name = Callable[[int, InputHashes], str]
Read = Callable[[Batch, Sequence[int]], Readings]

# Batches that are put in order of length together; a later, longer run keeps whole windows of an earlier one.
_WINDOW = 8
# After so many the fault is not the samples', and the rest need not be tried.
_MOST_FAULTS = 16
_NAMED = 3
_END = object()


class SampleError(PhaseError):
    """Some samples cannot be measured; the message names them, and says what became of the others."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What one batch gave: the name of every place, a row for every name that has one, and what went wrong by place."""

    names: dict[int, str] = field(default_factory=dict)
    rows: dict[str, Row] = field(default_factory=dict)
    faults: dict[int, str] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)

    def take(self, other: _Outcome) -> None:
        """Add another batch's; the first batch that has a name decides, as where one process measures it once."""
        self.names.update(other.names)
        self.faults.update(other.faults)
        self.refused.update(other.refused)
        for name, row in other.rows.items():
            self.rows.setdefault(name, row)


#: The places of some samples with their model inputs, or with why they have none.
_Prepared = tuple[tuple[int, ...], Batch | _Outcome]


@dataclass(frozen=True, slots=True)
class SampleRows:
    """The rows of the samples in their order, and by place why the processor refuses the pictures of others."""

    rows: list[Row]
    refused: dict[int, str]


class BatchRunner:
    """Takes the samples of one measurement through its model, batch by batch."""

    def __init__(
        self, vlm: Vlm, store: ReadingCache, *, batch_size: int, hide: bool, say: Callable[[str], None]
    ) -> None:
        """Begin a measurement.

        Args:
            vlm: the model.
            store: where readings are kept.
            batch_size: samples per forward pass, fewer where memory runs out.
            hide: whether to show no bar.
            say: takes a line on what is not as it was asked for.
        """
        self.vlm, self.cache, self.hide = vlm, store, hide
        self.adaptive_size = AdaptiveBatchSize(batch_size, vlm.name, say)
        self.batch_size = batch_size
        # A tokenizer holds how it pads, and batches are made ahead in another thread than halves of one are.
        self._tokenizing = threading.Lock()

    def read_samples(self, samples: Sequence[Sample], what: str, name: Name, read: Read) -> SampleRows:
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
                for at, batch in prefetch(self._prepared(samples, share)):
                    processes().begin_batch(f"{what}, batch {len(found) + 1} of {len(share)}")
                    found.append(self._outcome(samples, at, batch, name, read, seen))
                    # The whole run's progress, as far as this process can tell.
                    bar.update(min(len(at) * processes().count, len(samples) - bar.n))
                    if sum(len(outcome.faults) for outcome in found) >= _MOST_FAULTS:
                        break
            return found

        whole = _Outcome()
        for outcome in processes().gather(what, outcomes):
            whole.take(outcome)
        if not whole.faults:
            # Which samples go side by side is told from their pictures, by each process for itself.
            left = [place for place in range(len(samples)) if place not in whole.names and place not in whole.refused]
            reason = "its batch is composed otherwise in another process, which could not read all"
            whole.faults.update(dict.fromkeys(left, reason))
        if whole.faults:
            good = sum(name in whole.rows for name in whole.names.values())
            raise SampleError(self._named(samples, what, whole.faults, good))
        return SampleRows([whole.rows[whole.names[place]] for place in sorted(whole.names)], whole.refused)

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
            yield at, self._encode([samples[place] for place in at])
        except UnevenPromptsError:
            groups = self._even_groups(samples, at)
            if len(groups) == 1:
                raise
            for group in groups:
                yield from self._encoded(samples, group)
        except Exception as error:  # They raise what they like; what is no picture's fault is raised on.
            faults = {place: fault for place in at if (fault := image_fault(samples[place]))}
            refused: dict[int, str] = {}
            if not faults and isinstance(error, PromptError):
                with self._tokenizing:
                    reasons = refused_images(self.vlm, [samples[place] for place in at])
                refused = {place: reasons[samples[place].id] for place in at if samples[place].id in reasons}
            if not faults and not refused:
                raise
            yield (*faults, *refused), _Outcome(faults=faults, refused=refused)
            whole = tuple(place for place in at if place not in faults and place not in refused)
            if whole:
                yield from self._encoded(samples, whole)

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
        at: tuple[int, ...],
        batch: Batch | _Outcome,
        name: Name,
        read: Read,
        seen: dict[str, Row],
    ) -> _Outcome:
        if isinstance(batch, _Outcome):
            return batch
        outcome = _Outcome({place: name(place, own) for place, own in zip(at, batch.hashes, strict=True)})
        missing = [key for key in dict.fromkeys(outcome.names.values()) if key not in seen]
        kept = self.cache.read(missing) if missing else []
        if kept is None:
            rows = self._measured(samples, batch, at, read, outcome.faults)
            measured = {outcome.names[place]: row for place, row in rows.items()}
            missing = [key for key in missing if key in measured]
            kept = [measured[key] for key in missing]
            self.cache.write(missing, kept)
        seen.update(zip(missing, kept, strict=True))
        outcome.rows.update((key, seen[key]) for key in outcome.names.values() if key in seen)
        return outcome

    def _measured(
        self, samples: Sequence[Sample], batch: Batch, places: Sequence[int], read: Read, faults: dict[int, str]
    ) -> dict[int, Row]:
        """Return the rows of a batch by place, without those that `faults` now tells of."""

        def work(part: Sequence[int]) -> list[Row | None]:
            own = batch if len(part) == len(places) else self._encode([samples[place] for place in part])
            stopped = ""
            try:
                readings, wrong = read(exclude_separators(self.vlm, own), part), {}
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

        found = self.adaptive_size.map(places, work)
        return {place: row for place, row in zip(places, found, strict=True) if row is not None}

    def _named(self, samples: Sequence[Sample], what: str, faults: dict[int, str], good: int) -> str:
        """The sentence of what is wrong with which samples."""
        told = [f"sample {samples[place].id}: {faults[place]}" for place in sorted(faults)]
        more = f" and {len(told) - _NAMED} more" if len(told) > _NAMED else ""
        them = "them" if len(faults) > 1 else "it"
        kept = f"the readings of {good} others are kept" if self.cache.keeps_all else "nothing is kept"
        tried = " (the rest were not tried)" if len(faults) >= _MOST_FAULTS else ""
        return (
            f"{what}: {len(faults)} of {len(samples)} samples cannot be measured{tried}: {'; '.join(told[:_NAMED])}"
            f"{more}; {kept}: mend {them}, or take {them} out of the dataset, and run again"
        )


def refused_images(vlm: Vlm, samples: Sequence[Sample]) -> dict[str, str]:
    """Why a model's processor refuses the pictures of some samples, by their ids; no word of those that it takes."""
    reasons = {sample.id: image_refusal(vlm.processor, sample, vlm.anatomy.image_positions) for sample in samples}
    return {name: reason for name, reason in reasons.items() if reason}


def image_fault(sample: Sample) -> str:
    """Why a sample's picture cannot be had; empty where it can."""
    try:
        sample.load_image()
    except MemoryError:
        raise
    except Exception as error:  # A dataset's own code raises what it likes.
        return first_line(error)
    return ""


def prefetch(items: Iterator[T]) -> Iterator[T]:
    """The same items, up to two of them made before they are asked for.

    What the iterator raises is raised where the item would have come. An iteration that is given up makes no more.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
    try:
        coming = deque(pool.submit(next, items, _END) for _ in range(2))
        while (item := coming.popleft().result()) is not _END:
            coming.append(pool.submit(next, items, _END))
            yield item  # type: ignore[misc]
    finally:
        pool.shutdown(cancel_futures=True)
