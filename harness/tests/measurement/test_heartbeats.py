"""A waiting process reports a stalled one with its last heartbeat, and no working one."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from torch.distributed import HashStore

from harness.measurement import heartbeats
from harness.measurement.heartbeats import Heartbeats

HOURS = timedelta(hours=6)
LONGEST = 60.0


class Lines(list[str]):
    """Reported lines that a test can wait for."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()

    def say(self, line: str) -> None:
        with self._changed:
            self.append(line)
            self._changed.notify_all()

    def wait_for(self, number: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self) >= number, LONGEST), f"{len(self)} lines"


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[Heartbeats]:
    """Three processes with a shared store; a third of a second of silence counts as stalled."""
    monkeypatch.setattr(heartbeats, "SILENCE", 0.3)
    store, processes = HashStore(), [Heartbeats(rank, 3) for rank in range(3)]
    for process in processes:
        process.store = store
        process.beat("the start", 0)
    return processes


def test_a_stalled_process_is_named_with_its_last_heartbeat(processes: list[Heartbeats]) -> None:
    first, second, third = processes
    lines = Lines()
    second.beat("tiny x scenes, batch 3 of 8")
    third.beat("tiny x scenes", 0)
    with first.waiting("tiny x scenes", HOURS, lines.say):
        lines.wait_for(1)
    (line,) = lines
    assert re.fullmatch(
        r"process 1 has not answered since \d\d:\d\d:\d\d \(at tiny x scenes, batch 3 of 8\): it hangs, or one batch "
        r"takes that long; process 0 waits until 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d \(--phase-process-timeout\)",
        line,
    )
    assert first.silent().startswith("process 1 has not answered since ")
    assert "process 2" not in first.silent()


@pytest.mark.slow
def test_a_stalled_process_is_reported_at_growing_intervals(processes: list[Heartbeats]) -> None:
    first, _, third = processes
    times, lines = [time.monotonic()], Lines()
    third.beat("it", 0)
    processes[1].beat("it, batch 1 of 2")

    def say(line: str) -> None:
        times.append(time.monotonic())
        lines.say(line)

    with first.waiting("it", HOURS, say):
        lines.wait_for(3)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(set(lines)) == 1
    assert gaps[0] >= 0.3
    assert gaps[2] > 1.5 * gaps[1]


@pytest.mark.slow
def test_a_working_process_is_not_named(processes: list[Heartbeats], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeats, "SILENCE", 1.0)
    first, second, third = processes
    lines = Lines()
    third.beat("it", 0)
    with first.waiting("it", HOURS, lines.say):
        end, batch = time.monotonic() + 1.5, 0
        while time.monotonic() < end:
            batch += 1
            second.beat(f"it, batch {batch}")
            time.sleep(0.01)
    assert lines == []


@pytest.mark.slow
def test_the_waiting_process_with_the_lowest_rank_reports(processes: list[Heartbeats]) -> None:
    first, second, third = processes
    first.beat("loading")
    lines, others = Lines(), Lines()
    with second.waiting("it", HOURS, lines.say), third.waiting("it", HOURS, others.say):
        lines.wait_for(2)
    assert all(line.startswith("process 0 has not answered since ") for line in lines)
    assert all("process 1 waits until" in line for line in lines)
    assert others == []


def test_a_heartbeat_of_an_earlier_meeting_does_not_count_as_arrival(processes: list[Heartbeats]) -> None:
    first, second, third = processes
    lines = Lines()
    for meeting in (0, 1):
        for process in (second, third):
            process.beat("it", meeting)
        with first.waiting("it", HOURS, lines.say):
            pass
    third.beat("it", 2)
    with first.waiting("it", HOURS, lines.say):
        lines.wait_for(1)
    assert lines[0].startswith("process 1 has not answered since ")


def test_a_hanging_store_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeats, "SILENCE", 0.2)
    finished = threading.Event()

    class Hanging:
        def set(self, *_: Any) -> None:
            """Accept any value, like a socket."""

        def check(self, _: Any) -> bool:
            return not finished.wait(LONGEST)

    process, lines = Heartbeats(1, 2), Lines()
    process.store = Hanging()
    try:
        with process.waiting("it", HOURS, lines.say):
            lines.wait_for(1)
    finally:
        finished.set()
    assert lines[0].startswith("the process that hosts the shared store, 0 or the launcher, has not answered since ")


def test_a_lost_store_raises_no_error_in_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeats, "SILENCE", 0.2)

    class Lost:
        def set(self, *_: Any) -> None:
            raise RuntimeError("connection reset")

        check = set

    process, lines = Heartbeats(0, 2), Lines()
    process.store = Lost()
    process.beat("it")
    with process.waiting("it", HOURS, lines.say):
        lines.wait_for(1)


def test_all_processes_are_awaited_and_a_signal_ends_the_wait(processes: list[Heartbeats]) -> None:
    processes[0].await_all(HOURS, lambda: None)
    alone = Heartbeats(0, 2)
    alone.store = HashStore()
    with pytest.raises(TimeoutError):
        alone.await_all(timedelta(seconds=0.1), lambda: None)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        alone.await_all(HOURS, stop)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Assert that no waiting thread is left."""
    before = threading.active_count()
    yield
    end = time.monotonic() + LONGEST
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() <= before
