"""Signs of work of processes that measure together: one that waits can name another whose work stands still."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

# Seconds without a sign of work after which a process is reported; a single batch may take that long.
SILENCE = 60.0
# How often a process that waits looks at the others' signs, as a share of the time after which it reports.
_LOOKS = 12
# Seconds between two looks before all have come, when a signal must be able to end the wait.
_PAUSE = 0.05


@dataclass(frozen=True, slots=True)
class _Sign:
    """The last sign of a process: since when it stands (`clock` its own, `seen` this process's), and at which work.

    `meeting` is the number of the meeting at which the process waits; -1 while it works.
    """

    seen: float
    clock: str = ""
    work: str = ""
    meeting: int = -1


class Heartbeats:
    """The signs of process `rank` among `count`, exchanged over the store that all of them share.

    Signs are written by the work itself, between two batches, so that a thread of its own cannot vouch for work that
    hangs. They are read only by a process that waits.
    """

    def __init__(self, rank: int, count: int) -> None:
        self._rank, self._others = rank, [other for other in range(count) if other != rank]
        #: The store of torch.distributed that all processes share; None before they have it.
        self.store: Any = None
        self._meeting = -1
        self._signs: dict[int, _Sign] = {}
        # When all signs were last read.
        self._looked, self._pause = (0.0, ""), SILENCE

    def beat(self, work: str, meeting: int = -1) -> None:
        """Show the others that this process has come to another piece of work, or to a meeting."""
        if self.store is not None:
            # Over a lost store the next meeting has its own error.
            with contextlib.suppress(RuntimeError):
                self.store.set(_key(self._rank), json.dumps([_clock(), work, meeting]))

    def await_all(self, patience: timedelta, go_on: Callable[[], None]) -> None:
        """Return when all processes have given a sign.

        Args:
            patience: for how long.
            go_on: called again and again; may raise what ends the wait.

        Raises:
            TimeoutError: a process has not come.
        """
        assert self.store is not None
        end = time.monotonic() + patience.total_seconds()
        while not self.store.check([_key(other) for other in self._others]):
            go_on()
            if time.monotonic() > end:
                raise TimeoutError("timed out")
            time.sleep(_PAUSE)

    @contextlib.contextmanager
    def waiting(self, work: str, patience: timedelta, say: Callable[[str], None]) -> Iterator[None]:
        """Report processes that stand still while the block waits for them.

        Of those that wait, the one with the lowest rank reports; a process is reported again after twice the time.

        Args:
            work: names the meeting; the same in every process.
            patience: how long the block waits, for the message.
            say: takes a line; called in another thread while the block runs, and never after it.
        """
        self._meeting += 1
        self.beat(work, self._meeting)
        start, over = time.monotonic(), threading.Event()
        self._signs = {other: _Sign(start) for other in self._others}
        self._looked = start, _clock()
        self._pause = min(SILENCE, patience.total_seconds()) / _LOOKS
        until = f"{datetime.now() + patience:%Y-%m-%d %H:%M:%S}"
        # Two threads, because a store whose keeper hangs does not answer either.
        looking = threading.Thread(target=self._look, args=(over,), daemon=True)
        reporting = threading.Thread(target=self._report, args=(over, until, say), daemon=True)
        looking.start()
        reporting.start()
        try:
            yield
        finally:
            over.set()
            reporting.join()
            looking.join(_PAUSE)

    @property
    def leads(self) -> bool:
        """True if no process of a lower rank waits at the same meeting, as far as this one can tell."""
        return all(sign.meeting < self._meeting for rank, sign in self._signs.items() if rank < self._rank)

    def silent(self) -> str:
        """The processes that this one waits or waited for, each with its last sign; empty where all have come."""
        return "; ".join(text for _, text in self._standing())

    def _look(self, over: threading.Event) -> None:
        """Keep the others' last signs until the wait is over."""
        with contextlib.suppress(RuntimeError):
            while not over.wait(self._pause):
                if self.store is None:
                    continue
                for other in self._others:
                    if not self.store.check([_key(other)]):
                        continue
                    clock, work, meeting = json.loads(self.store.get(_key(other)))
                    last = self._signs[other]
                    if (last.clock, last.work, last.meeting) != (clock, work, meeting):
                        # The first sign may be as old as the wait.
                        seen = time.monotonic() if last.clock else last.seen
                        self._signs[other] = _Sign(seen, clock, work, meeting)
                self._looked = time.monotonic(), _clock()

    def _report(self, over: threading.Event, until: str, say: Callable[[str], None]) -> None:
        """Report what stands still, at growing intervals, until the wait is over."""
        limits: dict[str, float] = {}
        while not over.wait(self._pause):
            if not self.leads:
                continue
            for seen, text in self._standing():
                still = time.monotonic() - seen
                if still >= limits.get(text, SILENCE):
                    limits[text] = 2 * still
                    say(
                        f"{text}: it hangs, or one batch takes that long; process {self._rank} waits until {until} "
                        "(--phase-process-timeout)"
                    )

    def _standing(self) -> list[tuple[float, str]]:
        """Return the processes that this one waits for: since when their work stands here, and a text on each."""
        looked, clock = self._looked
        if self.store is None:
            return [(looked, f"not all processes have come since {clock}")]
        if time.monotonic() - looked > _LOOKS / 3 * self._pause:
            return [(looked, f"the process that keeps the common store, 0 or the launcher, is silent since {clock}")]
        return [(sign.seen, _silence(rank, sign)) for rank, sign in self._signs.items() if sign.meeting < self._meeting]


def _clock() -> str:
    return f"{datetime.now():%H:%M:%S}"


def _key(rank: int) -> str:
    return f"phase-process-{rank}"


def _silence(rank: int, sign: _Sign) -> str:
    if not sign.clock:
        return f"process {rank} has not come yet"
    return f"process {rank} has not answered since {sign.clock} (at {sign.work})"
