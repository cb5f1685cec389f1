"""Killed at any reading or at any moment, a measurement goes on from the last finished batch and gives one record."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.tests.support.case_runs import ROOT
from harness.tests.support.interrupted import SAMPLES

ROUNDS, SERIES = 50, 4

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork to be killed again and again"),
]


def lines(module: str, *arguments: str) -> list[list[str]]:
    command = [sys.executable, "-m", f"harness.tests.support.{module}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1800)
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


def missed_stages(rounds: list[list[str]], readings: int) -> list[str]:
    """Return the stages of a measurement at which none, or too few, of the rounds were killed."""
    alone = [tuple(map(int, line[2:5])) for line in rounds if line[0] == "killed"]
    unfinished = [(kept, parts) for kept, parts, record in alone if not record]
    met = {
        "at all": len(unfinished) > ROUNDS / 3,
        "before anything was kept": sum(kept == 0 for kept, _ in unfinished) >= 3,
        "in the middle": len({kept for kept, _ in unfinished if 0 < kept < readings}) >= 5,
        "when all was kept and no record written": any(kept == readings for kept, _ in unfinished),
        "while a file was written": sum(parts > 0 for _, parts in unfinished) >= 3,
    }
    return [stage for stage, enough in met.items() if not enough]


def test_killed_at_random_moments_it_ends_with_the_same_record(tmp_path: Path) -> None:
    assert hasattr(signal, "SIGKILL")
    rounds: list[list[str]] = []
    missed = [""]
    # The moments are the clock's: where the machine's speed changed meanwhile, more rounds are spread over its new one.
    for seed in range(SERIES):
        if missed:
            (place := tmp_path / str(seed)).mkdir()
            (readings,), *more = lines("killed", str(place), str(ROUNDS), str(seed))
            assert len(more) == ROUNDS
            assert [line for line in more if line[-1] != "same"] == []
            rounds += more
            missed = missed_stages(rounds, int(readings))
    assert missed == []
