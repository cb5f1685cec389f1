"""The real command `pytest cases/ --phase-update` on a tiny pair, killed while it writes or run twice at once.

The parent imports what the command needs and forks a child for each run, as `killed_updates` does.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import pytest

from harness.baselines import store
from harness.tests.support.case_runs import ROOT
from harness.tests.support.forked_steps import call_at_each_step, fork, pause, wait_for
from harness.tests.support.killed_updates import describe_directory, find_state, kill_at_moments, read_stored_files

NAME = Path("tiny-llava") / "tiny.json"
# Another number of samples is another baseline, and its readings are kept all the same.
SAMPLES = ("64", "70")


def run_update(home: Path, samples: str, root: Path, before: Callable[[], object], after: Callable[[], object]) -> None:
    """Run the command; calls `before` when it starts to write and `after` when it has written."""

    def watched_write(*arguments: object, **options: object) -> Path:
        # A second time where another run has recorded the baseline meanwhile.
        if calls:
            calls.pop()()
        path: Path = write(*arguments, **options)  # type: ignore[arg-type]
        after()
        return path

    write, calls = store.write_baseline, [before]
    options = {"baselines": root, "cache": home / "cache", "samples": samples, "controls": "none"}
    arguments = [f"--phase-{name}={value}" for name, value in options.items()]
    pair = ["--phase-model", "tiny-llava", "--phase-dataset", "tiny"]
    few = ["-m", "regression", "-k", "test_reproduces", "--phase-update", "-p", "no:cacheprovider"]
    # What the command prints is no line of the report.
    with mock.patch("harness.baselines.store.write_baseline", watched_write), contextlib.redirect_stdout(sys.stderr):
        code = pytest.main([str(ROOT / "cases"), "-p", "harness.tests.support.tiny_pairs", *few, *pair, *arguments])
    assert code == pytest.ExitCode.OK, code


def run_slow_update(home: Path, samples: str, root: Path, started: int) -> None:
    def begin() -> None:
        call_at_each_step(pause)
        os.write(started, b"1")

    run_update(home, samples, root, begin, lambda: os.write(started, b"2"))


def update_together(home: Path, rounds: int) -> None:
    """Two commands that write at the same time, from nothing and over an earlier baseline."""
    states = []
    for samples in SAMPLES:
        root = home / f"state-{samples}"
        assert wait_for(fork(partial(run_update, home, samples, root, int, int))) == 0
        states.append(read_stored_files(root / NAME))
    for number in range(rounds):
        root = home / f"round-{number}"
        if number % 2:
            assert wait_for(fork(partial(run_update, home, SAMPLES[0], root, int, int))) == 0
        ready, says = os.pipe()
        waiting, gate = os.pipe()

        def begin(says: int = says, gate: int = gate, waiting: int = waiting) -> None:
            os.write(says, b"1")
            os.close(gate)
            os.read(waiting, 1)

        pids = [fork(partial(run_update, home, samples, root, begin, int)) for samples in SAMPLES]
        for _ in range(len(pids) - number % 2):
            assert select.select([ready], [], [], 300)[0], "a command did not begin to write"
            os.read(ready, 1)
        # The end of the file is what all of them wait for.
        os.close(gate)
        codes = [wait_for(pid) for pid in pids]
        for handle in (ready, says, waiting):
            os.close(handle)
        print("together", *codes, find_state(root / NAME, states), describe_directory(root / NAME), flush=True)


def main(way: str, home: Path, rounds: int, seed: int) -> None:
    if way == "command-together":
        update_together(home, rounds)
    else:
        kill_at_moments(home, rounds, seed, [partial(run_slow_update, home, samples) for samples in SAMPLES], NAME)
