"""Portions that fit into memory: one that does not is halved, and those after it stay as small."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from harness.errors import PhaseError, first_line, is_out_of_memory

T = TypeVar("T")
R = TypeVar("R")


class MemoryShortageError(PhaseError):
    """Not even one sample at a time goes into memory; the message says what to do."""


class AdaptiveBatchSize:
    """How many items go through a model at a time; `size` halves where memory runs out."""

    def __init__(self, size: int, what: str, say: Callable[[str], None]) -> None:
        """Begin with `size` items of `what` (for messages) at a time."""
        self.size = size
        self._what, self._say = what, say

    def at_least(self, size: int) -> AdaptiveBatchSize:
        """Portions of their own, of `size` items where these here are smaller."""
        return AdaptiveBatchSize(max(size, self.size), self._what, self._say)

    def map(self, items: Sequence[T], work: Callable[[Sequence[T]], Sequence[R]]) -> list[R]:
        """The results of all items; `work` takes at most `size` of them at a time and is asked again with fewer.

        Raises:
            MemoryShortageError: memory runs out with one item.
        """
        results: list[R] = []
        while len(results) < len(items):
            left = items[len(results) :]
            results += self.run(lambda size: work(left[:size]), most=len(left))  # noqa: B023 - called at once
        return results

    def run(self, work: Callable[[int], R], most: int | None = None) -> R:
        """The result of `work` with `size` items, `most` where that is fewer; it is asked again with half as many.

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
            # Outside of the handler, where the error's traceback no longer holds the pass that failed.
            self._halve(tried, problem)

    def _halve(self, tried: int, problem: str) -> None:
        from accelerate.utils.memory import clear_device_cache

        if tried == 1:
            raise MemoryShortageError(
                f"{self._what}: not even one sample goes through the model ({problem}); use a device with more "
                "memory, a narrower --phase-dtype, or a model of fewer image tokens"
            )
        clear_device_cache(garbage_collection=True)
        self.size = tried // 2
        self._say(f"{self._what}: out of memory with {tried} samples at a time, going on with {self.size}")
