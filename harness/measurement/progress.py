"""The progress of a run: one bar over its pairs in a terminal, otherwise a line every 30 seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 30.0
_LAYOUT = "{desc} {bar}{percentage:3.0f}% {elapsed}"


class PeriodicLines:
    """Passes on a line if the one before is older than `SECONDS_BETWEEN_LINES`; the first waits as long."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock, self._last = say, clock, clock()

    def __call__(self, line: str) -> None:
        """Pass on the line, or drop it."""
        if self._clock() - self._last >= SECONDS_BETWEEN_LINES:
            self._last = self._clock()
            self._say(line)


class Progress:
    """The progress of one pair within a run of several; its passes over the samples share one bar."""

    def __init__(
        self,
        pair: str,
        *,
        number: int = 1,
        count: int = 1,
        bar: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Begin a pair.

        Args:
            pair: its name.
            number: its position in the run, from 1.
            count: the number of pairs of the run.
            bar: True to show a bar.
            say: receives a line per batch otherwise; see `PeriodicLines`.
        """
        self._title = f"pair {number} of {count}, {pair}" if count > 1 else pair
        self._number, self._count, self._bar, self._say = number, count, bar, say
        self._passes, self._finished = 1, 0

    def expect(self, passes: int) -> None:
        """Announce the number of passes over the samples, so that the bar shows the share of all of them."""
        self._passes = passes

    @contextmanager
    def samples(self, total: int, pass_name: str = "") -> Iterator[Callable[[int], None]]:
        """Show one pass over the samples; the context is a function that receives the number of newly finished samples.

        Args:
            total: the number of samples.
            pass_name: the control, or another name; empty for the pass without a control.
        """
        title = f"{self._title}{f', {pass_name}' if pass_name else ''}"
        passes = max(self._passes, self._finished + 1)
        start = (self._number - 1 + self._finished / passes) / self._count
        done = 0
        with tqdm(
            desc=f"{title}: 0 of {total} samples",
            total=1.0,
            initial=start,
            leave=False,
            disable=not self._bar,
            bar_format=_LAYOUT,
            dynamic_ncols=True,
        ) as bar:

            def advance(finished: int) -> None:
                nonlocal done
                done = min(done + finished, total)
                text = f"{title}: {done} of {total} samples"
                if self._bar:
                    bar.set_description_str(text, refresh=False)
                    bar.update(start + done / max(1, total) / (self._count * passes) - bar.n)
                else:
                    self._say(text)

            advance(0)
            yield advance
        self._finished += 1
