"""Kill a measurement at random moments and resume it: python -m harness.tests.support.killed DIR ROUNDS SEED.

Like `interrupted.py`, it forks before torch computes anything. Files are written in parts. A measurement kills itself
after a random part, in every second round a random time later. Parts are counted, so that the moments cover the whole
measurement at any speed.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Timer
from types import TracebackType
from typing import IO, Any, Self
from unittest import mock

import numpy as np

from harness.data.datasets import DATASETS
from harness.data.sample import Dataset
from harness.tests.support.interrupted import draw_paired_samples, fork, run_measurement, wait_for

PARTS = 8
#: Longest time in seconds between a part of a file and the kill.
LONGEST_DELAY = 0.03


@dataclass
class Kill:
    """A kill `delay` seconds after the measurement has written `moment` parts; `written` counts them."""

    moment: int
    delay: float = 0.0
    written: int = 0

    def count_part(self) -> None:
        self.written += 1
        if self.written == self.moment:
            self.start()

    def start(self) -> None:
        kill = partial(os.kill, os.getpid(), signal.SIGKILL)
        if self.delay:
            Timer(self.delay, kill).start()
        else:
            kill()


class CountedFile:
    """A file that splits each write into parts, each of which counts towards the kill."""

    def __init__(self, handle: int, mode: str, *, kill: Kill) -> None:
        self._file: IO[Any] = os.fdopen(handle, mode)
        self._kill = kill

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, content: bytes) -> None:
        step = len(content) // PARTS + 1
        for start in range(0, len(content), step):
            self._file.write(content[start : start + step])
            self._file.flush()
            self._kill.count_part()

    def flush(self) -> None:
        self._file.flush()

    def fileno(self) -> int:
        return self._file.fileno()


def run_until_killed(cache: Path, json: Path, kill: Kill) -> None:
    """Run a measurement; write the number of parts beside its record if it comes to its end."""
    if kill.moment == 0:
        kill.start()
    fdopen = partial(CountedFile, kill=kill)
    with mock.patch("harness.storage.files.os", mock.Mock(wraps=os, fdopen=fdopen, O_RDONLY=os.O_RDONLY)):
        run_measurement(cache, json, json.with_suffix(".written"))
    json.with_suffix(".parts").write_text(str(kill.written))


def start_measurement(cache: Path, json: Path, kill: Kill | None = None) -> int:
    return fork(lambda: run_until_killed(cache, json, kill or Kill(moment=-1)))


def finish_measurement(cache: Path, json: Path) -> int:
    """Run a measurement to its end and return the number of parts that it wrote."""
    assert wait_for(start_measurement(cache, json)) == 0
    return int(json.with_suffix(".parts").read_text())


def describe_progress(directory: Path) -> str:
    """Return the state after a killed run: cached files, half-written files, and 1 if its record exists."""
    files = sum(1 for _ in directory.rglob("*.npz"))
    parts = sum(1 for _ in directory.rglob(".*.phase-part"))
    return f"{files} {parts} {int((directory / 'first.json').exists())}"


def main(home: Path, rounds: int, seed: int) -> None:
    """Print the number of files of readings, then a line per round.

    A line holds `killed` or `together`, the text of `describe_progress`, and `same` if the resumed run has the record
    of an undisturbed run. In a round `together`, two runs share a cache; only the first is killed."""
    DATASETS["items"] = Dataset("items", "items", draw_paired_samples, paired=True)
    reference = home / "whole" / "run.json"
    reference.parent.mkdir()
    parts = finish_measurement(home / "whole-0", reference)
    print(sum(1 for _ in (home / "whole-0").rglob("*.npz")), flush=True)
    random = np.random.default_rng(seed)
    for number in range(rounds):
        together = number % 5 == 4
        # Stratified random moments over all parts of the undisturbed run.
        moment = int((number + random.random()) / rounds * parts)
        directory = home / f"round-{number}"
        directory.mkdir()
        cache, json = directory / "cache", directory / "first.json"
        first = start_measurement(cache, json, Kill(moment, number % 2 * random.random() * LONGEST_DELAY))
        second = start_measurement(cache, directory / "second.json") if together else None
        # The second run may have cached readings before the first, which then writes fewer parts.
        assert wait_for(first) in (0, -signal.SIGKILL)
        progress = describe_progress(directory)
        records = [json]
        if second is not None:
            assert wait_for(second) == 0
            records.append(directory / "second.json")
        if json.exists():
            assert json.read_bytes() == reference.read_bytes()
            json.unlink()
        finish_measurement(cache, json)
        same = all(record.read_bytes() == reference.read_bytes() for record in records)
        print("together" if together else "killed", progress, "same" if same else "other", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
