"""Updates of a baseline, killed or at once: python -m harness.tests.support.killed_updates WAY DIR [ROUNDS SEED].

WAY is `few-steps` or `steps` (killed before each step of the write in turn), `refused` (the system refuses each step in
turn), `moments` (killed when the clock says),
`together` (two at once) or, the same through the real command, `command-moments` and `command-together`. Each child is
forked by a process of its own, which has not computed, and is as dead as one that a machine killed. A line of output is
a round.
"""

from __future__ import annotations

import contextlib
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

from harness.baselines.store import (
    BaselineError,
    MissingBaselineError,
    find_baseline,
    read_baseline,
    write_baseline,
    write_timing,
)
from harness.baselines.stored_files import arrays_path, locked_for_writing, read_json, write_files
from harness.judgement.phases import phases_of
from harness.profile.profile import Profile
from harness.tests.support.forked_steps import call_at_each_step, fork, kill_at, pause, refuse_at, wait_for
from harness.tests.support.synthetic_profiles import synthetic_profile


def read_stored_files(path: Path) -> tuple[bytes, bytes] | None:
    """Both files of a baseline, None where there is none."""
    return (path.read_bytes(), arrays_path(path, read_json(path)).read_bytes()) if path.exists() else None


def find_state(path: Path, states: list[tuple[bytes, bytes] | None]) -> str:
    """Return the number of the state that a baseline is in; "broken" where it is in none of them."""
    try:
        if path.exists():
            read_baseline(path)
        return str(states.index(read_stored_files(path)))
    except (BaselineError, ValueError) as error:
        print(error, file=sys.stderr)
        return "broken"


def describe_directory(path: Path) -> str:
    """Whether a baseline lies alone in its directory; else the names of all files."""
    names = sorted(file.name for file in path.parent.iterdir())
    return "tidy" if names == sorted([path.name, arrays_path(path, read_json(path)).name]) else ",".join(names)


def find_stage(path: Path, before: tuple[bytes, bytes] | None) -> str:
    """How far an update was when it was killed: the last of what it had done."""
    replaced = path.exists() and (before is None or path.read_bytes() != before[0])
    more = sum(1 for _ in path.parent.glob("*.npz")) > (before is not None)
    if replaced:
        return "json" if more and before else "removed"
    return "arrays" if more else "parts" if any(path.parent.glob(".*.phase-part")) else "nothing"


def convert_to_earlier_version(path: Path) -> None:
    """Give the arrays of a baseline the name of earlier versions, which the JSON does not say."""
    content = read_json(path)
    arrays_path(path, content).rename(path.with_suffix(".npz"))
    del content["arrays"]
    write_files(path, content)


Update = Callable[[Path], object]
SlowUpdate = Callable[[Path, int], object]


def make_updates() -> list[Update]:
    """Two updates of the same baseline."""
    profiles: list[Profile] = [synthetic_profile(seed) for seed in (0, 1)]
    phases = [phases_of(profile) for profile in profiles]
    return [partial(write_baseline, profile=p, timing={}, phases=f) for p, f in zip(profiles, phases, strict=True)]


def record_states(home: Path, work: list[Update], path: Path) -> list[tuple[bytes, bytes] | None]:
    """Return the states of a baseline after each update, made by children."""
    found = []
    for number, update in enumerate(work):
        root = home / f"state-{number}"
        assert wait_for(fork(lambda root=root, update=update: update(root))) == 0  # type: ignore[misc]
        found.append(read_stored_files(root / path))
    return found


NAME = Path("made") / "curves.json"


def kill_at_steps(home: Path, kinds: tuple[str, ...]) -> None:
    """Kill an update of a missing baseline, of one of an earlier version and of one of this, before each step."""
    work = make_updates()
    states = record_states(home, work, NAME)
    for kind in kinds:
        start = home / kind
        start.mkdir()
        if kind != "missing":
            assert wait_for(fork(partial(work[0], start))) == 0
        if kind == "earlier":
            convert_to_earlier_version(start / NAME)
        before, at, status = read_stored_files(start / NAME), 0, -signal.SIGKILL
        while status == -signal.SIGKILL:
            root = home / f"{kind}-{at}"
            shutil.copytree(start, root)
            path = root / NAME
            status = wait_for(fork(partial(run_killed_update, work[1], root, at)))
            came, state = find_stage(path, before), find_state(path, [before, states[1]])
            ends = ["-"]
            # Every other time, to be quick: the next update removes what is left.
            if at % 2 or not status:
                assert wait_for(fork(partial(work[0], root))) == 0
                ends = [find_state(path, states), describe_directory(path)]
            print(kind, at, status, came, state, *ends, flush=True)
            at += 1


def refuse_at_steps(home: Path) -> None:
    """Refuse each step of an update in turn; it succeeds all the same, or ends in one sentence."""
    work = make_updates()
    states = record_states(home, work, NAME)
    for at in range(40):
        root = home / str(at)
        shutil.copytree(home / "state-0", root)
        status = wait_for(fork(partial(run_refused_update, work[1], root, at)))
        left = sum(1 for _ in (root / NAME).parent.glob(".*"))
        print(
            "refused", at, status, find_stage(root / NAME, states[0]), find_state(root / NAME, states), left, flush=True
        )


def run_refused_update(update: Update, root: Path, at: int) -> None:
    call_at_each_step(refuse_at(at))
    with contextlib.suppress(BaselineError):
        update(root)


def run_killed_update(update: Update, root: Path, at: int) -> None:
    call_at_each_step(kill_at(at))
    update(root)


def run_slow_update(update: Update, root: Path, started: int) -> None:
    """Update slowly, so that a moment may fall between any two steps; says when it starts to write."""
    call_at_each_step(pause)
    os.write(started, b"1")
    update(root)
    os.write(started, b"2")


def kill_at_moments(home: Path, rounds: int, seed: int, work: list[Callable[[Path, int], object]], path: Path) -> None:
    """Kill updates at moments that are spread over the time that one takes to write."""
    moments, start = random.Random(seed), home / "start"  # noqa: S311
    assert run_watched(work[0], start, None)[0] == 0
    shutil.copytree(start, home / "end")
    status, took = run_watched(work[1], home / "end", None)
    assert status == 0
    states = [read_stored_files(home / name / path) for name in ("start", "end")]
    for number in range(rounds):
        root = home / f"round-{number}"
        shutil.copytree(start, root)
        share = (number + moments.random()) / rounds
        # A little beyond, so that the end is met where the machine is slower by now.
        status, _ = run_watched(work[1], root, 1.1 * share * took)
        came, state = find_stage(root / path, states[0]), find_state(root / path, states)
        ends = "-"
        if number % 5 == 4:
            assert run_watched(work[0 if state == "1" else 1], root, None)[0] == 0
            ends = describe_directory(root / path)
        print("killed", f"{share:.3f}", status, came, state, ends, flush=True)


def run_watched(update: SlowUpdate, root: Path, moment: float | None) -> tuple[int, float]:
    """Return the exit status of an update that is killed a time after it starts to write, and how long it wrote."""
    mine, childs = os.pipe()
    pid = fork(lambda: update(root, childs))
    os.close(childs)
    begun = b"" if not select.select([mine], [], [], 300)[0] else os.read(mine, 1)
    assert begun == b"1", "the update did not start to write"
    start = time.perf_counter()
    if moment is not None:
        time.sleep(moment)
        os.kill(pid, signal.SIGKILL)
    os.read(mine, 1)
    took = time.perf_counter() - start
    os.close(mine)
    return wait_for(pid), took


def update_together(home: Path, rounds: int) -> None:
    """Two updates at once, from nothing and over each other, while a third process reads; then two ratios at once."""
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
    """Return the exit statuses of children that do the work, and begin at the same time."""
    waiting, gate = os.pipe()

    def begin(one: Callable[[], object]) -> None:
        os.close(gate)
        os.read(waiting, 1)
        one()

    pids = [fork(partial(begin, one)) for one in work]
    # The end of the file is what all of them wait for.
    os.close(gate)
    os.close(waiting)
    return [wait_for(pid) for pid in pids]


def read_repeatedly(root: Path, states: list[tuple[bytes, bytes] | None]) -> None:
    """Read a baseline over and over; it is missing or whole."""
    profile = synthetic_profile()
    while True:
        try:
            find_baseline(root, profile)
        except MissingBaselineError:
            continue


def main(way: str, home: Path, rounds: int = 0, seed: int = 0) -> None:
    # What a child would otherwise import is no step of the write.
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
