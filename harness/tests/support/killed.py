"""Kill a measurement at random moments and resume it: python -m harness.tests.support.killed DIR ROUNDS SEED.

Like `interrupted.py`, it forks before torch computes anything. Files are written slowly, so that many of the random
moments fall into the writing of a file.
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
    """A file that splits each write into parts, with a pause after each part."""

    def __init__(self, handle: int, mode: str) -> None:
        self._file: IO[Any] = os.fdopen(handle, mode)

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


def describe_progress(directory: Path) -> str:
    """Return the state after a killed run: cached files, half-written files, and 1 if its record exists."""
    files = sum(1 for _ in directory.rglob("*.npz"))
    parts = sum(1 for _ in directory.rglob(".*.phase-part"))
    return f"{files} {parts} {int((directory / 'first.json').exists())}"


def main(home: Path, rounds: int, seed: int) -> None:
    """Print the number of files of readings, then a line per round.

    A line holds `killed` or `together`, the moment as a share of the full duration, the text of `describe_progress`,
    and `same` if the resumed run has the record of an undisturbed run. In a round `together`, two runs share a cache at
    the same time; only the first is killed."""
    DATASETS["items"] = Dataset("items", "items", draw_paired_samples, paired=True)
    reference = home / "whole" / "run.json"
    reference.parent.mkdir()
    full_duration = median([measure_duration(home / f"whole-{run}", reference) for run in range(3)])
    print(sum(1 for _ in (home / "whole-0").rglob("*.npz")), flush=True)
    moments = np.random.default_rng(seed)
    for number in range(rounds):
        together = number % 5 == 4
        # Stratified random moments over the full duration.
        share = (number + moments.random()) / rounds
        directory = home / f"round-{number}"
        directory.mkdir()
        cache, json = directory / "cache", directory / "first.json"
        first = start_measurement(cache, json)
        second = start_measurement(cache, directory / "second.json") if together else None
        time.sleep(share * full_duration)
        os.kill(first, signal.SIGKILL)
        assert wait_for(first) in (0, -signal.SIGKILL)
        progress = describe_progress(directory)
        records = [json]
        if second is not None:
            assert wait_for(second) == 0
            records.append(directory / "second.json")
        if json.exists():
            assert json.read_bytes() == reference.read_bytes()
            json.unlink()
        assert wait_for(start_measurement(cache, json)) == 0
        same = all(record.read_bytes() == reference.read_bytes() for record in records)
        print("together" if together else "killed", f"{share:.3f}", progress, "same" if same else "other", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
