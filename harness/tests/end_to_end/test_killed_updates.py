"""Killed at any step or moment, an update leaves the old baseline or the new one whole; two at once leave one whole."""

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

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork to be killed again and again")


def lines(way: str, home: Path, *numbers: int) -> list[list[str]]:
    home.mkdir()
    command = [sys.executable, "-m", "harness.tests.support.killed_updates", way, str(home), *map(str, numbers)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1800)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def assert_whole_at_each_step(rounds: list[list[str]], kind: str) -> None:
    """Before the JSON is replaced the old baseline is whole, then the new one; the next update tidies up."""
    assert {line[0] for line in rounds} == {kind}
    *killed, last = rounds
    assert [line[2] for line in killed] == ["-9"] * len(killed)
    assert last[2:] == ["0", "removed", "1", "0", "tidy"]
    assert {line[3] for line in rounds} >= STAGES - ({"json"} if kind == "missing" else set())
    for line in rounds:
        assert line[4] == ("1" if line[3] in ("json", "removed") else "0"), line
        assert line[5:] in (["-"], ["0", "tidy"]), line


def test_killed_before_each_step_an_update_leaves_the_old_or_the_new_baseline(tmp_path: Path) -> None:
    rounds = lines("few-steps", tmp_path / "steps")
    assert len(rounds) > 20
    assert_whole_at_each_step(rounds, "earlier")


@pytest.mark.slow
def test_the_same_where_there_is_no_baseline_and_where_there_is_one_of_this_version(tmp_path: Path) -> None:
    rounds = lines("steps", tmp_path / "steps")
    for kind in ("missing", "present"):
        assert_whole_at_each_step([line for line in rounds if line[0] == kind], kind)


@pytest.mark.slow
def test_an_update_that_is_refused_any_step_succeeds_or_ends_in_a_sentence_and_leaves_one_whole(tmp_path: Path) -> None:
    rounds = lines("refused", tmp_path / "refused")
    assert len([line for line in rounds if line[4] == "0"]) > 10
    for line in rounds:
        assert line[2] == "0", line
        assert line[4] == ("1" if line[3] in ("json", "removed") else "0"), line
    # No parts; the lock's file stays where to lock it, or to remove it, is what was refused.
    assert sum(int(line[5]) for line in rounds) <= 2


@pytest.mark.slow
def test_killed_at_random_moments_an_update_leaves_the_old_or_the_new_baseline(tmp_path: Path) -> None:
    rounds = lines("command-moments", tmp_path / "command", KILLED_COMMANDS, 0)
    assert len(rounds) == KILLED_COMMANDS
    # The moments are the clock's: where they miss a step, or come when all is over, more are tried.
    killed: list[str] = []
    for seed in range(SERIES):
        if len(killed) < KILLS or STAGES - set(killed):
            rounds += lines("moments", tmp_path / str(seed), KILLS, seed)
            killed = [line[3] for line in rounds if line[2] == "-9"]
    assert len(killed) >= KILLS
    assert set(killed) == STAGES
    for line in rounds:
        assert line[4] == ("1" if line[3] in ("json", "removed") else "0"), line
        assert line[5] in ("-", "tidy"), line


@pytest.mark.slow
def test_of_two_updates_at_once_one_is_whole_and_both_add_their_ratios(tmp_path: Path) -> None:
    rounds = lines("together", tmp_path / "together", PAIRS)
    assert len(rounds) == PAIRS
    for line in rounds:
        assert line[1:5] == ["0"] * 4, line
        assert line[5] in ("0", "1"), line
        assert line[6:] == ["tidy", "one", "two"], line
    commands = lines("command-together", tmp_path / "command", PAIRS_OF_COMMANDS)
    assert len(commands) == PAIRS_OF_COMMANDS
    for line in commands:
        assert line[1:3] == ["0", "0"], line
        assert line[3] in ("0", "1"), line
        assert line[4] == "tidy", line
