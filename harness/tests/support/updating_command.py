"""The real command `pytest cases/ --phase-update` on a tiny pair, killed while it writes or run twice at the same time.

The parent imports all modules and forks a child for each run, like `killed_updates`.
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
from harness.tests.support.case_runs import ACCEPT, ROOT
from harness.tests.support.forked_steps import call_at_each_step, fork, pause, wait_for
from harness.tests.support.killed_updates import describe_directory, find_state, kill_at_moments, read_stored_files

NAME = Path("tiny-llava") / "tiny.json"
# Another number of samples gives another baseline from the same cached readings.
SAMPLES = ("64", "70")


def run_update(home: Path, samples: str, root: Path, before: Callable[[], object], after: Callable[[], object]) -> None:
    """Run the command. Call `before` when it starts to write and `after` when it has written."""

    def watched_write(*arguments: object, **options: object) -> Path:
        # The function is called again if another run has recorded the baseline meanwhile.
        if calls:
            calls.pop()()
        path: Path = write(*arguments, **options)  # type: ignore[arg-type]
        after()
        return path

    write, calls = store.write_baseline, [before]
    options = {"baselines": root, "cache": home / "cache", "samples": samples, "controls": "none"}
    arguments = [f"--phase-{name}={value}" for name, value in options.items()]
    pair = ["--phase-model", "tiny-llava", "--phase-dataset", "tiny"]
    selection = ["-m", "regression", "-k", "test_reproduces", *ACCEPT, "-p", "no:cacheprovider"]
    # Standard output is reserved for the result lines.
    with mock.patch("harness.baselines.store.write_baseline", watched_write), contextlib.redirect_stdout(sys.stderr):
        code = pytest.main(
            [str(ROOT / "cases"), "-p", "harness.tests.support.tiny_pairs", *selection, *pair, *arguments]
        )
    assert code == pytest.ExitCode.OK, code


def run_slow_update(home: Path, samples: str, root: Path, started: int) -> None:
    def begin() -> None:
        call_at_each_step(pause)
        os.write(started, b"1")

    run_update(home, samples, root, begin, lambda: os.write(started, b"2"))


def update_together(home: Path, rounds: int) -> None:
    """Run two commands that write at the same time, without and with an earlier baseline."""
    states = []
    for samples in SAMPLES:
        root = home / f"state-{samples}"
        assert wait_for(fork(partial(run_update, home, samples, root, int, int))) == 0
        states.append(read_stored_files(root / NAME))
    for number in range(rounds):
        root = home / f"round-{number}"
        if number % 2:
            assert wait_for(fork(partial(run_update, home, SAMPLES[0], root, int, int))) == 0
        ready, ready_writer = os.pipe()
        waiting, gate = os.pipe()

        def begin(ready_writer: int = ready_writer, gate: int = gate, waiting: int = waiting) -> None:
            os.write(ready_writer, b"1")
            os.close(gate)
            os.read(waiting, 1)

        pids = [fork(partial(run_update, home, samples, root, begin, int)) for samples in SAMPLES]
        for _ in range(len(pids) - number % 2):
            assert select.select([ready], [], [], 300)[0], "a command did not begin to write"
            os.read(ready, 1)
        # Closing the gate starts all children.
        os.close(gate)
        codes = [wait_for(pid) for pid in pids]
        for handle in (ready, ready_writer, waiting):
            os.close(handle)
        print("together", *codes, find_state(root / NAME, states), describe_directory(root / NAME), flush=True)


def main(way: str, home: Path, rounds: int, seed: int) -> None:
    if way == "command-together":
        update_together(home, rounds)
    else:
        kill_at_moments(home, rounds, seed, [partial(run_slow_update, home, samples) for samples in SAMPLES], NAME)
