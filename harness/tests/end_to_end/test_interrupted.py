"""A measurement killed at any moment resumes from the last finished batch and gives the same record."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.tests.support.case_runs import ROOT
from harness.tests.support.interrupted import BATCH, SAMPLES

ROUNDS = 50

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
]


def run_module(module: str, *arguments: str) -> list[list[str]]:
    command = [sys.executable, "-m", f"harness.tests.support.{module}", *arguments]
    completed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1800)
    print(completed.stdout)
    assert completed.returncode == 0, completed.stderr
    return [line.split() for line in completed.stdout.splitlines()]


def test_a_measurement_killed_at_any_file_resumes_to_the_same_record(tmp_path: Path) -> None:
    points = run_module("interrupted", str(tmp_path))
    assert [int(point[0]) for point in points] == list(range(1, int(points[0][1]) + 1))
    assert len(points) > 2 * SAMPLES / BATCH, "readings, two controls and the captions' likelihoods"
    for number, _, same, measured, unfinished in points:
        assert same == "same", f"killed at file {number}"
        assert measured == unfinished, f"killed at file {number}"


def missed_stages(rounds: list[list[str]], files: int) -> list[str]:
    """Return the stages of a measurement at which too few of the rounds were killed."""
    counts = [tuple(map(int, line[1:4])) for line in rounds if line[0] == "killed"]
    unfinished = [(cached, parts) for cached, parts, record in counts if not record]
    met = {
        "at all": len(unfinished) > ROUNDS / 3,
        "before any reading was cached": sum(cached == 0 for cached, _ in unfinished) >= 3,
        "in the middle": len({cached for cached, _ in unfinished if 0 < cached < files}) >= 5,
        "when all readings were cached and no record written": any(cached == files for cached, _ in unfinished),
        "while a file was written": sum(parts > 0 for _, parts in unfinished) >= 3,
    }
    return [stage for stage, enough in met.items() if not enough]


def test_a_measurement_killed_at_random_moments_resumes_to_the_same_record(tmp_path: Path) -> None:
    assert hasattr(signal, "SIGKILL")
    (files,), *rounds = run_module("killed", str(tmp_path), str(ROUNDS), "0")
    assert len(rounds) == ROUNDS
    assert [line for line in rounds if line[-1] != "same"] == []
    assert missed_stages(rounds, int(files)) == []
