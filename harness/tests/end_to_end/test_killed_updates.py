"""An update killed at any moment leaves the complete old or new baseline, as do two simultaneous updates."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.tests.support.case_runs import ROOT

KILLS, KILLED_COMMANDS = 50, 6
PAIRS, PAIRS_OF_COMMANDS = 18, 2
SERIES = 4
STAGES = {"nothing", "parts", "arrays", "json", "removed"}

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def run_rounds(way: str, home: Path, *numbers: int) -> list[list[str]]:
    home.mkdir()
    command = [sys.executable, "-m", "harness.tests.support.killed_updates", way, str(home), *map(str, numbers)]
    completed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1800)
    print(completed.stdout)
    assert completed.returncode == 0, completed.stderr
    return [line.split() for line in completed.stdout.splitlines()]


def assert_complete_at_each_step(rounds: list[list[str]], kind: str) -> None:
    """Assert that the old baseline is complete until the JSON is replaced, then the new one.

    The next update must also remove all leftover files.
    """
    assert {line[0] for line in rounds} == {kind}
    *killed, last = rounds
    assert [line[2] for line in killed] == ["-9"] * len(killed)
    assert last[2:] == ["0", "removed", "1", "0", "tidy"]
    assert {line[3] for line in rounds} >= STAGES - ({"json"} if kind == "missing" else set())
    for line in rounds:
        assert line[4] == ("1" if line[3] in ("json", "removed") else "0"), line
        assert line[5:] in (["-"], ["0", "tidy"]), line


@pytest.mark.slow
def test_an_update_killed_before_any_step_leaves_the_old_or_the_new_baseline(tmp_path: Path) -> None:
    rounds = run_rounds("few-steps", tmp_path / "steps")
    assert len(rounds) > 20
    assert_complete_at_each_step(rounds, "earlier")


@pytest.mark.slow
def test_the_same_without_a_baseline_and_with_one_of_this_version(tmp_path: Path) -> None:
    rounds = run_rounds("steps", tmp_path / "steps")
    for kind in ("missing", "present"):
        assert_complete_at_each_step([line for line in rounds if line[0] == kind], kind)


@pytest.mark.slow
def test_an_update_with_a_failing_step_leaves_the_old_or_the_new_baseline(tmp_path: Path) -> None:
    rounds = run_rounds("refused", tmp_path / "refused")
    assert len([line for line in rounds if line[4] == "0"]) > 10
    for line in rounds:
        assert line[2] == "0", line
        assert line[4] == ("1" if line[3] in ("json", "removed") else "0"), line
    # No partial files remain. The lock file stays if locking or removing it was the failing step.
    assert sum(int(line[5]) for line in rounds) <= 2


@pytest.mark.slow
def test_an_update_killed_at_random_moments_leaves_the_old_or_the_new_baseline(tmp_path: Path) -> None:
    rounds = run_rounds("command-moments", tmp_path / "command", KILLED_COMMANDS, 0)
    assert len(rounds) == KILLED_COMMANDS
    # The moments depend on the clock. If they miss a step or come too late, more rounds are run.
    killed: list[str] = []
    for seed in range(SERIES):
        if len(killed) < KILLS or STAGES - set(killed):
            rounds += run_rounds("moments", tmp_path / str(seed), KILLS, seed)
            killed = [line[3] for line in rounds if line[2] == "-9"]
    assert len(killed) >= KILLS
    assert set(killed) == STAGES
    for line in rounds:
        assert line[4] == ("1" if line[3] in ("json", "removed") else "0"), line
        assert line[5] in ("-", "tidy"), line


@pytest.mark.slow
def test_two_simultaneous_updates_leave_one_complete_baseline_and_both_ratios(tmp_path: Path) -> None:
    rounds = run_rounds("together", tmp_path / "together", PAIRS)
    assert len(rounds) == PAIRS
    for line in rounds:
        assert line[1:5] == ["0"] * 4, line
        assert line[5] in ("0", "1"), line
        assert line[6:] == ["tidy", "one", "two"], line
    commands = run_rounds("command-together", tmp_path / "command", PAIRS_OF_COMMANDS)
    assert len(commands) == PAIRS_OF_COMMANDS
    for line in commands:
        assert line[1:3] == ["0", "0"], line
        assert line[3] in ("0", "1"), line
        assert line[4] == "tidy", line
