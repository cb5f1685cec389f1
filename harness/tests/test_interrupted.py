"""Killed at any reading, a measurement goes on from the last finished batch and ends with the same record."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.tests.case_runs import ROOT
from harness.tests.interrupted import SAMPLES

BATCH = 2


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork to be killed again and again")
def test_a_killed_measurement_ends_with_the_same_record(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "harness.tests.interrupted", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    points = [line.split() for line in done.stdout.splitlines()]
    assert [int(point[0]) for point in points] == list(range(1, int(points[0][1]) + 1))
    assert len(points) > 2 * SAMPLES, "real readings, two controls and the captions' likelihoods"
    for at, _, same, anew in points:
        assert same == "same", f"killed at reading {at}"
        finished = min((int(at) - 1) // BATCH * BATCH, SAMPLES)
        assert int(anew) == SAMPLES - finished, f"killed at reading {at}"
