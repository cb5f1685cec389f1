"""The forward passes over a pair's samples: prefetched, cached and shared among processes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from harness.data.sample import Sample
from harness.errors import PhaseError, first_line
from harness.measurement.arrays import reading_rows
from harness.measurement.batch_size import AdaptiveBatchSize
from harness.measurement.progress import Progress
from harness.measurement.ranks import processes
from harness.measurement.reading_cache import ReadingCache
from harness.models.forward_errors import ForwardError
from harness.models.prompts.chat import PromptError
from harness.models.prompts.hashes import InputHashes
from harness.models.prompts.processor_call import even_groups, expected_lengths
from harness.models.prompts.prompt import Batch, UnevenPromptsError, encode, image_refusal
from harness.models.vlm import Vlm
from harness.probe.readings import Readings
from harness.probe.self_checks import NotFiniteError
from harness.probe.separators import exclude_separators
from harness.profile.profile import Array

T = TypeVar("T")
Row = dict[str, Array]
Name = Callable[[int, InputHashes], str]
Read = Callable[[Batch, Sequence[int]], Readings]

# Batches that are sorted by length together; a later run with more samples forms the same batches in complete windows.
_WINDOW = 8
# So many faulty samples indicate a fault of the model, so the remaining samples are not tried.
_MOST_FAULTS = 16
_NAMED = 3  # samples named in a message
_END = object()


class SampleError(PhaseError):
    """Some samples cannot be measured; the message names them and reports whether the others are cached."""


@dataclass(frozen=True, slots=True)
class _BatchResult:
    """The result of a batch: cache names, faults and refusal reasons by sample index, and rows by cache name."""

    names: dict[int, str] = field(default_factory=dict)
    rows: dict[str, Row] = field(default_factory=dict)
    faults: dict[int, str] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)

    def merge(self, other: _BatchResult) -> None:
        """Add another batch's result; rows that are already present take precedence."""
        self.names.update(other.names)
        self.faults.update(other.faults)
        self.refused.update(other.refused)
        for name, row in other.rows.items():
            self.rows.setdefault(name, row)


#: The indices of some samples with their model inputs, or with the reasons why they have none.
_Prepared = tuple[tuple[int, ...], Batch | _BatchResult]


@dataclass(frozen=True, slots=True)
class SampleRows:
    """The rows of the measured samples in order, and the reasons for refused samples by index."""

    rows: list[Row]
    refused: dict[int, str]


class BatchRunner:
    """Runs the samples of one measurement through its model, batch by batch."""

    def __init__(
        self, vlm: Vlm, cache: ReadingCache, *, batch_size: int, progress: Progress, say: Callable[[str], None]
    ) -> None:
        """Begin a measurement.

        Args:
            vlm: the model.
            cache: the cache of readings.
            batch_size: samples per forward pass, reduced if memory runs out.
            progress: shows the finished samples.
            say: receives a line if the batch size is reduced.
        """
        self.vlm, self.cache, self.progress = vlm, cache, progress
        self.adaptive_size, self.batch_size = AdaptiveBatchSize(batch_size, vlm.name, say), batch_size
        # A tokenizer stores its padding state, and the prefetching thread and this one both use it.
        self._tokenizing = threading.Lock()

    def read_samples(self, samples: Sequence[Sample], title: str, name: Name, read: Read, part: str = "") -> SampleRows:
        """Return one row of readings per sample, in order; samples with refused images have none.

        Prompts of similar length share a batch, and the next batches are encoded while one runs. Fully cached batches
        are not measured, and equal inputs run once. Several processes share the batches, and each returns all rows.

        Args:
            samples: the samples to measure.
            title: the title of messages.
            name: returns the cache name of a sample's readings from its index and its input hashes.
            read: observes a batch; it receives the batch and the indices of its samples.
            part: the name of the pass for the progress, empty without a control.

        Raises:
            SampleError: an image is unavailable, a forward pass fails, or readings are NaN or infinite. All other
                samples are measured and cached first.
            MemoryShortageError: memory runs out with one sample.
            ProcessError: this process must stop, or another is lost.
            PromptError, SelfCheckError, AttentionError: see these classes; they concern the model, not one sample.
        """

        def outcomes() -> list[_BatchResult]:
            seen, results = dict[str, Row](), list[_BatchResult]()
            share = processes().share(-(-len(samples) // self.batch_size))
            with self.progress.samples(len(samples), part) as advance:
                for indices, batch in prefetch(self._prepared(samples, share)):
                    processes().begin_batch(f"{title}, batch {len(results) + 1} of {len(share)}")
                    results.append(self._outcome(samples, indices, batch, name, read, seen))
                    advance(len(indices) * processes().count)
                    if sum(len(outcome.faults) for outcome in results) >= _MOST_FAULTS:
                        break
            return results

        combined = _BatchResult()
        for outcome in processes().gather(title, outcomes):
            combined.merge(outcome)
        if not combined.faults:
            # Each process composes batches from the image sizes that it reads itself.
            known = combined.names.keys() | combined.refused.keys()
            unread = [index for index in range(len(samples)) if index not in known]
            reason = "another process composed its batch differently, because it could not read all images"
            combined.faults.update(dict.fromkeys(unread, reason))
        if combined.faults:
            count = sum(name in combined.rows for name in combined.names.values())
            raise SampleError(self._fault_message(samples, title, combined.faults, count))
        return SampleRows([combined.rows[combined.names[index]] for index in sorted(combined.names)], combined.refused)

    def _prepared(self, samples: Sequence[Sample], share: Sequence[int]) -> Iterator[_Prepared]:
        """Yield the encoded batches of this process's share, in order."""
        own_share = set(share)
        for number, indices in enumerate(self._batches(samples)):
            if number in own_share:
                yield from self._encoded(samples, indices)

    def _batches(self, samples: Sequence[Sample]) -> Iterator[tuple[int, ...]]:
        """Yield the indices of each batch; its prompts have similar expected lengths."""
        size = self.batch_size
        for start in range(0, len(samples), _WINDOW * size):
            window = range(start, min(start + _WINDOW * size, len(samples)))
            order: Sequence[int] = window
            if size > 1:
                with self._tokenizing:
                    lengths = expected_lengths(self.vlm.processor, samples[window.start : window.stop])
                order = sorted(window, key=lambda index: lengths[index - start])
            for first in range(0, len(order), size):
                yield tuple(order[first : first + size])

    def _encoded(self, samples: Sequence[Sample], indices: tuple[int, ...]) -> Iterator[_Prepared]:
        """Yield the samples at these indices as one batch, or as several if their prompts cannot be padded."""
        try:
            yield indices, self._encode([samples[index] for index in indices])
        except UnevenPromptsError:
            with self._tokenizing:
                groups = even_groups(self.vlm.processor, [samples[index] for index in indices])
            if len(groups) == 1:
                raise
            for group in groups:
                yield from self._encoded(samples, tuple(indices[row] for row in group))
        except Exception as error:  # Datasets and processors raise any class; only faults of images are handled.
            faults = {index: fault for index in indices if (fault := image_fault(samples[index]))}
            refused: dict[int, str] = {}
            if not faults and isinstance(error, PromptError):
                with self._tokenizing:
                    reasons = refused_images(self.vlm, [samples[index] for index in indices])
                refused = {index: reasons[samples[index].id] for index in indices if samples[index].id in reasons}
            if not faults and not refused:
                raise
            yield (*faults, *refused), _BatchResult(faults=faults, refused=refused)
            accepted = tuple(index for index in indices if index not in faults and index not in refused)
            if accepted:
                yield from self._encoded(samples, accepted)

    def _encode(self, samples: Sequence[Sample]) -> Batch:
        with self._tokenizing:
            return encode(self.vlm.processor, samples, self.vlm.anatomy.image_positions)

    def _outcome(
        self,
        samples: Sequence[Sample],
        indices: tuple[int, ...],
        batch: Batch | _BatchResult,
        name: Name,
        read: Read,
        known: dict[str, Row],
    ) -> _BatchResult:
        if isinstance(batch, _BatchResult):
            return batch
        outcome = _BatchResult(dict(zip(indices, map(name, indices, batch.hashes), strict=True)))
        missing = [key for key in dict.fromkeys(outcome.names.values()) if key not in known]
        cached = self.cache.read(missing) if missing else []
        if cached is None:
            rows = self._measure(samples, batch, indices, read, outcome.faults)
            measured = {outcome.names[index]: row for index, row in rows.items()}
            missing = [key for key in missing if key in measured]
            cached = [measured[key] for key in missing]
            self.cache.write(missing, cached)
        known.update(zip(missing, cached, strict=True))
        outcome.rows.update((key, known[key]) for key in outcome.names.values() if key in known)
        return outcome

    def _measure(
        self, samples: Sequence[Sample], batch: Batch, indices: Sequence[int], read: Read, faults: dict[int, str]
    ) -> dict[int, Row]:
        """Return the rows of a batch by index; samples without a row are added to `faults`."""

        def work(part: Sequence[int]) -> list[Row | None]:
            inputs = batch if len(part) == len(indices) else self._encode([samples[index] for index in part])
            stopped = ""
            try:
                readings, not_finite = read(exclude_separators(self.vlm, inputs), part), {}
            except NotFiniteError as error:
                readings, not_finite = error.readings, error.faults
            except ForwardError as error:
                stopped = str(error)
            if stopped and len(part) > 1:
                # A single sample may have stopped the entire batch.
                return [row for index in part for row in work([index])]
            if stopped:
                faults[part[0]] = stopped
                return [None]
            faults.update((part[row], message) for row, message in not_finite.items())
            rows = enumerate(reading_rows(readings, inputs.hashes))
            return [None if row in not_finite else values for row, values in rows]

        rows = self.adaptive_size.map(indices, work)
        return {index: row for index, row in zip(indices, rows, strict=True) if row is not None}

    def _fault_message(self, samples: Sequence[Sample], title: str, faults: dict[int, str], count: int) -> str:
        """Return the message of a `SampleError`: the samples with faults and the number of cached readings."""
        lines = [f"sample {samples[index].id}: {faults[index]}" for index in sorted(faults)]
        further = f" and {len(lines) - _NAMED} more" if len(lines) > _NAMED else ""
        them = "them" if len(faults) > 1 else "it"
        cached = f"the readings of {count} others are cached" if self.cache.keeps_all else "no readings are cached"
        skipped = " (the rest were not tried)" if len(faults) >= _MOST_FAULTS else ""
        return (
            f"{title}: {len(faults)} of {len(samples)} samples cannot be measured{skipped}: {'; '.join(lines[:_NAMED])}"
            f"{further}; {cached}. Repair {them}, or remove {them} from the dataset, and run again"
        )


def refused_images(vlm: Vlm, samples: Sequence[Sample]) -> dict[str, str]:
    """Return the reason why the processor refuses each sample's image, by id; accepted samples are absent."""
    reasons = {sample.id: image_refusal(vlm.processor, sample, vlm.anatomy.image_positions) for sample in samples}
    return {name: reason for name, reason in reasons.items() if reason}


def image_fault(sample: Sample) -> str:
    """Return the reason why a sample's image is unavailable; empty if it is available."""
    try:
        sample.load_image()
    except MemoryError:
        raise
    except Exception as error:  # A dataset's own code may raise any class.
        return first_line(error)
    return ""


def prefetch(items: Iterator[T]) -> Iterator[T]:
    """Yield the same items and prepare up to two of them in advance, in a background thread.

    An error of the iterator is raised in place of its item. Closing the generator stops the preparation.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
    try:
        pending = deque(pool.submit(next, items, _END) for _ in range(2))
        while (item := pending.popleft().result()) is not _END:
            pending.append(pool.submit(next, items, _END))
            yield item  # type: ignore[misc]
    finally:
        pool.shutdown(cancel_futures=True)
