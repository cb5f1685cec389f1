"""Killed and simultaneous updates of a baseline: python -m harness.tests.support.killed_updates WAY DIR [ROUNDS SEED].

WAY is one of:
    few-steps, steps: kill the update before each file operation in turn.
    refused: let each file operation fail in turn.
    moments: kill the update at random moments.
    together: run two updates at the same time.
    command-moments, command-together: the same through the real command.

The process forks its children before it computes anything. Each line of output is a round.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from harness.baselines.field_changes import write_timing
from harness.baselines.store import (
    BaselineError,
    MissingBaselineError,
    find_baseline,
    read_baseline,
    write_baseline,
)
from harness.baselines.stored_files import arrays_path, locked_for_writing, read_json, write_files
from harness.judgement.phases import phases_of
from harness.profile.profile import Profile
from harness.tests.support.forked_steps import call_at_each_step, fork, kill_at, pause, refuse_at, wait_for
from harness.tests.support.synthetic_profiles import synthetic_profile


def read_stored_files(path: Path) -> tuple[bytes, bytes] | None:
    """Return both files of a baseline, or None if it does not exist."""
    return (path.read_bytes(), arrays_path(path, read_json(path)).read_bytes()) if path.exists() else None


def without_history(files: tuple[bytes, bytes] | None) -> tuple[dict[str, Any], bytes] | None:
    """Return the content of a baseline's files without what records how it was reached."""
    if files is None:
        return None
    content = json.loads(files[0])
    return {name: value for name, value in content.items() if name not in ("history", "checksum")}, files[1]


def find_state(path: Path, states: list[tuple[bytes, bytes] | None]) -> str:
    """Return the index of the baseline's state in `states`, or "broken" if it is in none of them."""
    try:
        if path.exists():
            read_baseline(path)
        stored = read_stored_files(path)
        return str([without_history(state) for state in states].index(without_history(stored)))
    except (BaselineError, ValueError) as error:
        print(error, file=sys.stderr)
        return "broken"


def describe_directory(path: Path) -> str:
    """Return "tidy" if the directory holds only the baseline, else the names of all files."""
    names = sorted(file.name for file in path.parent.iterdir())
    return "tidy" if names == sorted([path.name, arrays_path(path, read_json(path)).name]) else ",".join(names)


def find_stage(path: Path, before: tuple[bytes, bytes] | None) -> str:
    """Return the last completed stage of a killed update."""
    replaced = path.exists() and (before is None or path.read_bytes() != before[0])
    has_more_arrays = sum(1 for _ in path.parent.glob("*.npz")) > (before is not None)
    if replaced:
        return "json" if has_more_arrays and before else "removed"
    return "arrays" if has_more_arrays else "parts" if any(path.parent.glob(".*.phase-part")) else "nothing"


def convert_to_earlier_version(path: Path) -> None:
    """Rename the arrays as in earlier versions, whose JSON does not name them."""
    content = read_json(path)
    arrays_path(path, content).rename(path.with_suffix(".npz"))
    del content["arrays"]
    write_files(path, content)


Update = Callable[[Path], object]
SlowUpdate = Callable[[Path, int], object]


def make_updates() -> list[Update]:
    """Return two updates of the same baseline."""
    profiles: list[Profile] = [synthetic_profile(seed) for seed in (0, 1)]
    phases = [phases_of(profile) for profile in profiles]
    return [partial(write_baseline, profile=p, timing={}, phases=f) for p, f in zip(profiles, phases, strict=True)]


def record_states(home: Path, work: list[Update], path: Path) -> list[tuple[bytes, bytes] | None]:
    """Return the baseline's state after each update, which child processes run."""
    states = []
    for number, update in enumerate(work):
        root = home / f"state-{number}"
        assert wait_for(fork(lambda root=root, update=update: update(root))) == 0  # type: ignore[misc]
        states.append(read_stored_files(root / path))
    return states


NAME = Path("made") / "curves.json"


def kill_at_steps(home: Path, kinds: tuple[str, ...]) -> None:
    """Kill an update before each step, for each kind of existing baseline: missing, earlier or present."""
    work = make_updates()
    states = record_states(home, work, NAME)
    for kind in kinds:
        start = home / kind
        start.mkdir()
        if kind != "missing":
            assert wait_for(fork(partial(work[0], start))) == 0
        if kind == "earlier":
            convert_to_earlier_version(start / NAME)
        before, step, status = read_stored_files(start / NAME), 0, -signal.SIGKILL
        while status == -signal.SIGKILL:
            root = home / f"{kind}-{step}"
            shutil.copytree(start, root)
            path = root / NAME
            status = wait_for(fork(partial(run_killed_update, work[1], root, step)))
            stage, state = find_stage(path, before), find_state(path, [before, states[1]])
            ends = ["-"]
            # The next update removes leftovers. To save time, only every second step checks that.
            if step % 2 or not status:
                assert wait_for(fork(partial(work[0], root))) == 0
                ends = [find_state(path, states), describe_directory(path)]
            print(kind, step, status, stage, state, *ends, flush=True)
            step += 1


def refuse_at_steps(home: Path) -> None:
    """Refuse each step of an update in turn. The update succeeds or raises a `BaselineError`."""
    work = make_updates()
    states = record_states(home, work, NAME)
    for step in range(40):
        root = home / str(step)
        shutil.copytree(home / "state-0", root)
        status = wait_for(fork(partial(run_refused_update, work[1], root, step)))
        leftovers = sum(1 for _ in (root / NAME).parent.glob(".*"))
        print(
            "refused",
            step,
            status,
            find_stage(root / NAME, states[0]),
            find_state(root / NAME, states),
            leftovers,
            flush=True,
        )


def run_refused_update(update: Update, root: Path, step: int) -> None:
    call_at_each_step(refuse_at(step))
    with contextlib.suppress(BaselineError):
        update(root)


def run_killed_update(update: Update, root: Path, step: int) -> None:
    call_at_each_step(kill_at(step))
    update(root)


def run_slow_update(update: Update, root: Path, started: int) -> None:
    """Update with a pause at each step, and signal the start and end of writing through the pipe `started`."""
    call_at_each_step(pause)
    os.write(started, b"1")
    update(root)
    os.write(started, b"2")


def kill_at_moments(home: Path, rounds: int, seed: int, work: list[Callable[[Path, int], object]], path: Path) -> None:
    """Kill updates at random moments, spread over the duration of a write."""
    moments, start = random.Random(seed), home / "start"  # noqa: S311
    assert run_watched(work[0], start, None)[0] == 0
    shutil.copytree(start, home / "end")
    status, duration = run_watched(work[1], home / "end", None)
    assert status == 0
    states = [read_stored_files(home / name / path) for name in ("start", "end")]
    for number in range(rounds):
        root = home / f"round-{number}"
        shutil.copytree(start, root)
        share = (number + moments.random()) / rounds
        # 10 % longer, so that the end is reached even if the machine has become slower.
        status, _ = run_watched(work[1], root, 1.1 * share * duration)
        stage, state = find_stage(root / path, states[0]), find_state(root / path, states)
        ends = "-"
        if number % 5 == 4:
            assert run_watched(work[0 if state == "1" else 1], root, None)[0] == 0
            ends = describe_directory(root / path)
        print("killed", f"{share:.3f}", status, stage, state, ends, flush=True)


def run_watched(update: SlowUpdate, root: Path, moment: float | None) -> tuple[int, float]:
    """Kill an update `moment` seconds after it starts to write; return its exit status and writing time in seconds."""
    reading_end, writing_end = os.pipe()
    pid = fork(lambda: update(root, writing_end))
    os.close(writing_end)
    begun = b"" if not select.select([reading_end], [], [], 300)[0] else os.read(reading_end, 1)
    assert begun == b"1", "the update did not start to write"
    start = time.perf_counter()
    if moment is not None:
        time.sleep(moment)
        os.kill(pid, signal.SIGKILL)
    os.read(reading_end, 1)
    duration = time.perf_counter() - start
    os.close(reading_end)
    return wait_for(pid), duration


def update_together(home: Path, rounds: int) -> None:
    """Run two updates at the same time while a third process reads, then two timing updates at the same time."""
    work = make_updates()
    states = record_states(home, work, NAME)
    for number in range(rounds):
        root = home / f"round-{number}"
        path = root / NAME
        if number % 2:
            work[0](root)
        reader = fork(partial(read_repeatedly, root, states))
        codes = run_at_once([partial(update, root) for update in work])
        state, ends = find_state(path, states), describe_directory(path)
        os.kill(reader, signal.SIGTERM)
        assert wait_for(reader) in (-signal.SIGTERM, 0)
        baseline = read_baseline(path)
        codes += run_at_once([partial(write_timing, baseline, key, 1.0) for key in ("one", "two")])
        print("together", *codes, state, ends, *sorted(read_json(path)["timing"]), flush=True)


def run_at_once(work: list[Callable[[], object]]) -> list[int]:
    """Run the work in children that begin at the same time; return their exit statuses."""
    waiting, gate = os.pipe()

    def begin(update: Callable[[], object]) -> None:
        os.close(gate)
        os.read(waiting, 1)
        update()

    pids = [fork(partial(begin, update)) for update in work]
    # Closing the gate starts all children.
    os.close(gate)
    os.close(waiting)
    return [wait_for(pid) for pid in pids]


def read_repeatedly(root: Path, states: list[tuple[bytes, bytes] | None]) -> None:
    """Read a baseline repeatedly. It must be missing or complete."""
    profile = synthetic_profile()
    while True:
        try:
            find_baseline(root, profile)
        except MissingBaselineError:
            continue


def main(way: str, home: Path, rounds: int = 0, seed: int = 0) -> None:
    # Import everything now, so that a child's imports are not counted as steps.
    with locked_for_writing(home):
        pass
    if way in ("steps", "few-steps"):
        kill_at_steps(home, ("earlier",) if way == "few-steps" else ("missing", "present"))
    elif way == "refused":
        refuse_at_steps(home)
    elif way == "moments":
        work = [partial(run_slow_update, update) for update in make_updates()]
        kill_at_moments(home, rounds, seed, work, NAME)
    elif way == "together":
        update_together(home, rounds)
    else:
        from harness.tests.support import updating_command

        updating_command.main(way, home, rounds, seed)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:]))
