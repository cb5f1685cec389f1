"""Kills a measurement with SIGKILL at every point where a reading is kept: python -m harness.tests.interrupted DIR.

A process of its own, that forks before it has ever computed: a child that was killed half-way through a file is as
dead as one that was killed by a machine.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch

from harness.assembly import reading_rows
from harness.data.registry import DATASETS
from harness.data.sample import Dataset, Sample
from harness.json_text import dump
from harness.measurement import measure
from harness.report.record import pair_record
from harness.tests.tiny import tiny_samples, tiny_vlm

SAMPLES = 6


def items(n: int, *_: object) -> list[Sample]:
    """Samples of one instruction, every two the sides of an item, so that every kind of reading is kept."""
    return [
        Sample(s.id, s.picture, "describe the image please", s.captions, f"item {k // 2}")
        for k, s in enumerate(tiny_samples(n))
    ]


def forked(work: Callable[[], None]) -> int:
    """The exit status of a child that does the work; negative where a signal ended it."""
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def measured(cache: Path, json: Path, passes: Path) -> None:
    """Measures the pair, writes its record and how many samples were observed anew."""
    observed: list[int] = []

    def counting(readings: object, hashes: object) -> object:
        rows = reading_rows(readings, hashes)  # type: ignore[arg-type]
        observed.append(len(rows))
        return rows

    torch.set_num_threads(1)
    with mock.patch("harness.measurement.reading_rows", counting):
        profile = measure(tiny_vlm(), "items", samples=SAMPLES, batch_size=2, cache=cache, progress=False)
    json.write_bytes(dump(pair_record(profile)))
    passes.write_text(str(sum(observed)))


def killed(cache: Path, at: int) -> None:
    """Measures the pair and dies while it writes the reading number `at`, with half of the file on the disk."""
    real, written = os.fdopen, [0]

    def dying(handle: int, mode: str) -> object:
        written[0] += 1
        if written[0] == at:
            os.write(handle, b"PK half of a reading")
            os.kill(os.getpid(), signal.SIGKILL)
        return real(handle, mode)

    with mock.patch("harness.files.os.fdopen", dying):
        measured(cache, cache / "unseen.json", cache / "unseen")


def main(home: Path) -> None:
    """Prints a line per point: where it was killed, whether the record is the same, how much was measured anew."""
    DATASETS["items"] = Dataset("items", "items", items, paired=True)
    assert forked(lambda: measured(home / "whole", home / "whole.json", home / "passes")) == 0
    whole = (home / "whole.json").read_bytes()
    kept = sum(1 for _ in (home / "whole").rglob("*.npz"))
    for at in range(1, kept + 1):
        cache = home / f"killed-{at}"
        assert forked(lambda cache=cache, at=at: killed(cache, at)) == -signal.SIGKILL  # type: ignore[misc]
        assert forked(lambda cache=cache: measured(cache, home / "again.json", home / "passes")) == 0  # type: ignore[misc]
        same = (home / "again.json").read_bytes() == whole
        print(at, kept, "same" if same else "other", (home / "passes").read_text())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
