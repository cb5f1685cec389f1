"""Killed at any reading or at any moment, a measurement goes on from the last finished batch and gives one record."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.tests.case_runs import ROOT
from harness.tests.interrupted import SAMPLES

ROUNDS = 50

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork to be killed again and again"),
]


def lines(module: str, *arguments: str) -> list[list[str]]:
    command = [sys.executable, "-m", f"harness.tests.{module}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=400)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def test_a_killed_measurement_ends_with_the_same_record(tmp_path: Path) -> None:
    points = lines("interrupted", str(tmp_path))
    assert [int(point[0]) for point in points] == list(range(1, int(points[0][1]) + 1))
    assert len(points) > 2 * SAMPLES, "real readings, two controls and the captions' likelihoods"
    for at, _, same, anew, unfinished in points:
        assert same == "same", f"killed at reading {at}"
        assert anew == unfinished, f"killed at reading {at}"


def test_killed_at_random_moments_it_ends_with_the_same_record(tmp_path: Path) -> None:
    assert hasattr(signal, "SIGKILL")
    (readings,), *rounds = lines("killed", str(tmp_path), str(ROUNDS), "0")
    assert len(rounds) == ROUNDS
    assert [line for line in rounds if line[-1] != "same"] == []
    alone = [tuple(map(int, line[2:5])) for line in rounds if line[0] == "killed"]
    unfinished = [(kept, parts) for kept, parts, record in alone if not record]
    # The moments are the clock's: every stage must have been met, not each as often on every machine.
    assert len(unfinished) > ROUNDS / 3
    assert sum(kept == 0 for kept, _ in unfinished) >= 3, "before anything was kept"
    assert len({kept for kept, _ in unfinished if 0 < kept < int(readings)}) >= 5, "in the middle"
    assert any(kept == int(readings) for kept, _ in unfinished), "when all was kept and no record written"
    assert sum(parts > 0 for _, parts in unfinished) >= 3, "while a file was written"
