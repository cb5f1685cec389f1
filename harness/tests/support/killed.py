"""Kills a measurement at random moments and resumes it: python -m harness.tests.support.killed DIR ROUNDS SEED.

As `interrupted.py` a process of its own, that forks before it has ever computed. Files are written slowly,
so that many of the moments fall into one; the clock chooses, not the code.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import IO, Any, Self
from unittest import mock

import numpy as np

from harness.data.datasets import DATASETS
from harness.data.sample import Dataset
from harness.tests.support.interrupted import draw_paired_samples, fork, run_measurement, wait_for

PAUSE = 0.001
PARTS = 8


class SlowFile:
    """A file that takes what is written to it in parts, with a pause after each."""

    def __init__(self, handle: int, mode: str) -> None:
        self._file: IO[Any] = os.fdopen(handle, mode)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def write(self, content: bytes) -> None:
        step = len(content) // PARTS + 1
        for start in range(0, len(content), step):
            self._file.write(content[start : start + step])
            self._file.flush()
            time.sleep(PAUSE)

    def flush(self) -> None:
        self._file.flush()

    def fileno(self) -> int:
        return self._file.fileno()


def run_slow_measurement(cache: Path, json: Path) -> None:
    with mock.patch("harness.storage.files.os", mock.Mock(wraps=os, fdopen=SlowFile, O_RDONLY=os.O_RDONLY)):
        run_measurement(cache, json, json.with_suffix(".written"))


def start_measurement(cache: Path, json: Path) -> int:
    return fork(lambda: run_slow_measurement(cache, json))


def measure_duration(cache: Path, json: Path) -> float:
    before = time.perf_counter()
    assert wait_for(start_measurement(cache, json)) == 0
    return time.perf_counter() - before


def describe_progress(place: Path) -> str:
    """How far a killed run came: readings kept, files half written, and whether its record is there."""
    kept = sum(1 for _ in place.rglob("*.npz"))
    parts = sum(1 for _ in place.rglob(".*.phase-part"))
    return f"{kept} {parts} {int((place / 'first.json').exists())}"


def main(home: Path, rounds: int, seed: int) -> None:
    """Print the number of readings, then a line per round.

    Of a round: `killed` or `together`, the moment as a share of the whole duration, then as `stage` says, and whether
    the record of the resumed run is that of one which nobody disturbed. In a round together two runs work on one cache
    at once; the first is killed, the second is not.
    """
    DATASETS["items"] = Dataset("items", "items", draw_paired_samples, paired=True)
    whole = home / "whole" / "run.json"
    whole.parent.mkdir()
    took = median([measure_duration(home / f"whole-{run}", whole) for run in range(3)])
    print(sum(1 for _ in (home / "whole-0").rglob("*.npz")), flush=True)
    moments = np.random.default_rng(seed)
    for number in range(rounds):
        together = number % 5 == 4
        # Spread over the whole duration, each anywhere in its part of it.
        share = (number + moments.random()) / rounds
        place = home / f"round-{number}"
        place.mkdir()
        cache, json = place / "cache", place / "first.json"
        first = start_measurement(cache, json)
        second = start_measurement(cache, place / "second.json") if together else None
        time.sleep(share * took)
        os.kill(first, signal.SIGKILL)
        assert wait_for(first) in (0, -signal.SIGKILL)
        found = describe_progress(place)
        records = [json]
        if second is not None:
            assert wait_for(second) == 0
            records.append(place / "second.json")
        if json.exists():
            assert json.read_bytes() == whole.read_bytes()
            json.unlink()
        assert wait_for(start_measurement(cache, json)) == 0
        same = all(record.read_bytes() == whole.read_bytes() for record in records)
        print("together" if together else "killed", f"{share:.3f}", found, "same" if same else "other", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
