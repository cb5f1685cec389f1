"""Adaptive batch size: it is halved after an out-of-memory error and stays halved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from harness.errors import PhaseError, first_line, is_out_of_memory
from harness.interface import option_text

T = TypeVar("T")
R = TypeVar("R")


class MemoryShortageError(PhaseError):
    """A single sample exceeds the memory; the message names remedies."""


class AdaptiveBatchSize:
    """The number of items per call of a model; `size` is halved when memory runs out."""

    def __init__(self, size: int, title: str, say: Callable[[str], None]) -> None:
        """Begin with `size` items per call; messages start with `title`."""
        self.size = size
        self._title, self._say = title, say

    def at_least(self, size: int) -> AdaptiveBatchSize:
        """Return an independent copy with `size` or more items per call."""
        return AdaptiveBatchSize(max(size, self.size), self._title, self._say)

    def map(self, items: Sequence[T], work: Callable[[Sequence[T]], Sequence[R]]) -> list[R]:
        """Return the results of all items; `work` receives at most `size` of them and is retried with fewer.

        Raises:
            MemoryShortageError: memory runs out with one item.
        """
        results: list[R] = []
        while len(results) < len(items):
            remaining = items[len(results) :]
            results += self.run(lambda size: work(remaining[:size]), most=len(remaining))  # noqa: B023 - called at once
        return results

    def run(self, work: Callable[[int], R], most: int | None = None) -> R:
        """Return `work(n)` for n the smaller of `size` and `most`; retry with half as many if memory runs out.

        Raises:
            MemoryShortageError: memory runs out with one item.
        """
        while True:
            tried = self.size if most is None else min(self.size, most)
            try:
                return work(tried)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                problem = first_line(error)
            # Outside of the handler, because the error's traceback keeps the failed pass in memory.
            self._halve(tried, problem)

    def _halve(self, tried: int, problem: str) -> None:
        from accelerate.utils.memory import clear_device_cache

        if tried == 1:
            raise MemoryShortageError(
                f"{self._title}: not even one sample fits into memory ({problem}); use a device with more "
                f"memory, a narrower {option_text('dtype')}, or a model with fewer image tokens"
            )
        clear_device_cache(garbage_collection=True)
        self.size = tried // 2
        self._say(f"{self._title}: out of memory with batches of {tried} samples, continuing with {self.size}")
