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
from harness.tests.support.forked_steps import at_each_step, ended, forked, pausing
from harness.tests.support.killed_updates import killed_at_moments, stored, tidy, whole

NAME = Path("tiny-llava") / "tiny.json"
# Another number of samples is another baseline, and its readings are kept all the same.
SAMPLES = ("64", "70")


def run(home: Path, samples: str, root: Path, before: Callable[[], object], after: Callable[[], object]) -> None:
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


def slow_run(home: Path, samples: str, root: Path, started: int) -> None:
    def begin() -> None:
        at_each_step(pausing)
        os.write(started, b"1")

    run(home, samples, root, begin, lambda: os.write(started, b"2"))


def together(home: Path, rounds: int) -> None:
    """Two commands that write at the same time, from nothing and over an earlier baseline."""
    states = []
    for samples in SAMPLES:
        root = home / f"state-{samples}"
        assert ended(forked(partial(run, home, samples, root, int, int))) == 0
        states.append(stored(root / NAME))
    for number in range(rounds):
        root = home / f"round-{number}"
        if number % 2:
            assert ended(forked(partial(run, home, SAMPLES[0], root, int, int))) == 0
        ready, says = os.pipe()
        waiting, gate = os.pipe()

        def begin(says: int = says, gate: int = gate, waiting: int = waiting) -> None:
            os.write(says, b"1")
            os.close(gate)
            os.read(waiting, 1)

        pids = [forked(partial(run, home, samples, root, begin, int)) for samples in SAMPLES]
        for _ in range(len(pids) - number % 2):
            assert select.select([ready], [], [], 300)[0], "a command did not begin to write"
            os.read(ready, 1)
        # The end of the file is what all of them wait for.
        os.close(gate)
        codes = [ended(pid) for pid in pids]
        for handle in (ready, says, waiting):
            os.close(handle)
        print("together", *codes, whole(root / NAME, states), tidy(root / NAME), flush=True)


def main(way: str, home: Path, rounds: int, seed: int) -> None:
    if way == "command-together":
        together(home, rounds)
    else:
        killed_at_moments(home, rounds, seed, [partial(slow_run, home, samples) for samples in SAMPLES], NAME)
