"""Heartbeats of cooperating processes: a waiting process reports other processes that have stalled."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from harness.interface import option_text

# Seconds without a heartbeat after which a process is reported; a single batch may take that long.
SILENCE = 60.0
# Number of polls of the others' heartbeats within `SILENCE`, or within the longest wait if that is shorter.
_POLLS = 12
# Seconds between two polls before all have arrived; short, so that a signal can end the wait.
_PAUSE = 0.05


@dataclass(frozen=True, slots=True)
class _Heartbeat:
    """The last heartbeat of a process and its work.

    `clock` is the sender's time as text, `seen` the monotonic time at which this process first read it. `meeting` is
    the number of the meeting at which the sender waits; -1 while it works.
    """

    seen: float
    clock: str = ""
    work: str = ""
    meeting: int = -1


class Heartbeats:
    """The heartbeats of process `rank` of `count`, exchanged through a shared store.

    The measuring thread writes them between two batches; a background thread would continue to write while the work
    hangs. Only a waiting process reads them.
    """

    def __init__(self, rank: int, count: int) -> None:
        self._rank, self._others = rank, [other for other in range(count) if other != rank]
        #: The store of torch.distributed that all processes share; None before they are connected.
        self.store: Any = None
        self._meeting = -1
        self._latest: dict[int, _Heartbeat] = {}
        # Monotonic time and clock text of the last complete poll.
        self._polled, self._pause = (0.0, ""), SILENCE

    def beat(self, work: str, meeting: int = -1) -> None:
        """Write a heartbeat: this process begins other work, or waits at a meeting."""
        if self.store is not None:
            # The next meeting raises its own error about a lost store.
            with contextlib.suppress(RuntimeError):
                self.store.set(_key(self._rank), json.dumps([_clock(), work, meeting]))

    def await_all(self, patience: timedelta, check: Callable[[], None]) -> None:
        """Wait until all processes have written a heartbeat.

        Args:
            patience: the longest wait.
            check: called at every poll; an exception of it ends the wait.

        Raises:
            TimeoutError: a process has not arrived.
        """
        assert self.store is not None
        end = time.monotonic() + patience.total_seconds()
        while not self.store.check([_key(other) for other in self._others]):
            check()
            if time.monotonic() > end:
                raise TimeoutError("timed out")
            time.sleep(_PAUSE)

    @contextlib.contextmanager
    def waiting(self, work: str, patience: timedelta, say: Callable[[str], None]) -> Iterator[None]:
        """Report stalled processes while the block waits for them.

        Only the waiting process with the lowest rank reports. It reports a process again when its silence has doubled.

        Args:
            work: the name of the meeting; the same in every process.
            patience: the longest wait of the block, for the message.
            say: receives a line; called in another thread while the block runs, and never after it.
        """
        self._meeting += 1
        self.beat(work, self._meeting)
        start, finished = time.monotonic(), threading.Event()
        self._latest = {other: _Heartbeat(start) for other in self._others}
        self._polled = start, _clock()
        self._pause = min(SILENCE, patience.total_seconds()) / _POLLS
        until = f"{datetime.now() + patience:%Y-%m-%d %H:%M:%S}"
        # Polling has its own thread, because a poll blocks if the process that hosts the store hangs.
        polling = threading.Thread(target=self._poll, args=(finished,), daemon=True)
        reporting = threading.Thread(target=self._report, args=(finished, until, say), daemon=True)
        polling.start()
        reporting.start()
        try:
            yield
        finally:
            finished.set()
            reporting.join()
            polling.join(_PAUSE)

    @property
    def leads(self) -> bool:
        """True if no process with a lower rank is known to wait at the same meeting."""
        return all(last.meeting < self._meeting for rank, last in self._latest.items() if rank < self._rank)

    def silent(self) -> str:
        """Describe the processes that this one waits for, each with its last heartbeat; empty if all have arrived."""
        return "; ".join(text for _, text in self._stalled())

    def _poll(self, finished: threading.Event) -> None:
        """Poll the others' heartbeats until the wait is over."""
        with contextlib.suppress(RuntimeError):
            while not finished.wait(self._pause):
                if self.store is None:
                    continue
                for other in self._others:
                    if not self.store.check([_key(other)]):
                        continue
                    clock, work, meeting = json.loads(self.store.get(_key(other)))
                    last = self._latest[other]
                    if (last.clock, last.work, last.meeting) != (clock, work, meeting):
                        # The first heartbeat that is read may be old, so its age counts from the start of the wait.
                        seen = time.monotonic() if last.clock else last.seen
                        self._latest[other] = _Heartbeat(seen, clock, work, meeting)
                self._polled = time.monotonic(), _clock()

    def _report(self, finished: threading.Event, until: str, say: Callable[[str], None]) -> None:
        """Report stalled processes, at growing intervals, until the wait is over."""
        limits: dict[str, float] = {}
        while not finished.wait(self._pause):
            if not self.leads:
                continue
            for seen, text in self._stalled():
                idle = time.monotonic() - seen
                if idle >= limits.get(text, SILENCE):
                    limits[text] = 2 * idle
                    say(
                        f"{text}: it hangs, or one batch takes that long; process {self._rank} waits until {until} "
                        f"({option_text('process_timeout')})"
                    )

    def _stalled(self) -> list[tuple[float, str]]:
        """Return the time of the last heartbeat and a description of each process that this one waits for."""
        polled, clock = self._polled
        if self.store is None:
            return [(polled, f"not all processes have connected since {clock}")]
        if time.monotonic() - polled > _POLLS / 3 * self._pause:
            return [
                (polled, f"the process that hosts the shared store, 0 or the launcher, has not answered since {clock}")
            ]
        late = [(rank, last) for rank, last in self._latest.items() if last.meeting < self._meeting]
        return [(last.seen, _describe(rank, last)) for rank, last in late]


def _clock() -> str:
    return f"{datetime.now():%H:%M:%S}"


def _key(rank: int) -> str:
    return f"phase-process-{rank}"


def _describe(rank: int, heartbeat: _Heartbeat) -> str:
    if not heartbeat.clock:
        return f"process {rank} has not connected yet"
    return f"process {rank} has not answered since {heartbeat.clock} (at {heartbeat.work})"
