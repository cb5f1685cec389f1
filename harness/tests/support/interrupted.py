"""Kill a measurement with SIGKILL at each write of a file of readings: python -m harness.tests.support.interrupted DIR.

The program forks before torch computes anything. A child that is killed in the middle of a file therefore leaves the
same state as a process killed by the machine.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from harness.data.datasets import DATASETS
from harness.data.sample import Dataset, Sample
from harness.measurement.measure import measure
from harness.measurement.reading_cache import ReadingCache
from harness.report.record import pair_record
from harness.storage.files import write_atomically
from harness.storage.json_text import dump
from harness.tests.support.tiny import tiny_samples, tiny_vlm

SAMPLES, BATCH = 6, 2


def draw_paired_samples(n: int, *_: object) -> list[Sample]:
    """Return samples with the same instruction, two per item, so that every kind of reading is cached."""
    return [
        Sample(s.id, s.load_image, "describe the image please", s.captions, f"item {k // 2}")
        for k, s in enumerate(tiny_samples(n))
    ]


def fork(work: Callable[[], None]) -> int:
    """Fork a child that does the work and return its process id."""
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return pid


def wait_for(pid: int) -> int:
    """Wait for a child and return its exit status, negative if a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run_measurement(cache: Path, json: Path, written: Path) -> None:
    """Measure the pair; write its record and the number of newly cached readings per batch."""
    sizes: list[int] = []
    keep = ReadingCache.write

    def counting(store: ReadingCache, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        sizes.append(len(names))
        keep(store, names, rows)

    torch.set_num_threads(1)
    with mock.patch.object(ReadingCache, "write", counting):
        profile = measure(tiny_vlm(), "items", samples=SAMPLES, batch_size=BATCH, cache=cache, progress=False)
    write_atomically(json, dump(pair_record(profile)))
    written.write_text(" ".join(map(str, sizes)))


def read_batch_sizes(written: Path) -> list[int]:
    """Return the number of newly cached readings of each batch."""
    return [int(size) for size in written.read_text().split()]


def run_until_killed(cache: Path, number: int) -> None:
    """Measure the pair and kill the process while it writes file `number` of readings, with half of it on disk."""
    real, written = os.fdopen, [-1]

    def dying(handle: int, mode: str) -> object:
        # The first file identifies the store, so counting starts at -1.
        written[0] += 1
        if written[0] == number:
            os.write(handle, b"PK half of a batch")
            os.kill(os.getpid(), signal.SIGKILL)
        return real(handle, mode)

    with mock.patch("harness.storage.files.os.fdopen", dying):
        run_measurement(cache, cache / "unseen.json", cache / "unseen")


def main(home: Path) -> None:
    """Print a line per kill at a file: its number, the number of files, whether the resumed record is the same, and the
    numbers of readings that were cached again and that were not cached before the kill."""
    DATASETS["items"] = Dataset("items", "items", draw_paired_samples, paired=True)
    assert wait_for(fork(lambda: run_measurement(home / "whole", home / "whole.json", home / "written"))) == 0
    reference, sizes = (home / "whole.json").read_bytes(), read_batch_sizes(home / "written")
    files = sum(1 for _ in (home / "whole").rglob("*.npz"))
    assert files == len(sizes)
    for number in range(1, files + 1):
        cache = home / f"killed-{number}"
        assert wait_for(fork(lambda cache=cache, number=number: run_until_killed(cache, number))) == -signal.SIGKILL  # type: ignore[misc]
        again = fork(lambda cache=cache: run_measurement(cache, home / "again.json", home / "written"))  # type: ignore[misc]
        assert wait_for(again) == 0
        same = (home / "again.json").read_bytes() == reference
        unfinished = sum(sizes[number - 1 :])
        print(number, files, "same" if same else "other", sum(read_batch_sizes(home / "written")), unfinished)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
