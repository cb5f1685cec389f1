"""Contestants run in turn, round after round, so that a drifting machine strikes them all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

LEAST_ROUNDS, MOST_ROUNDS = 3, 25
COSTLY_SHARE = 0.4

Times = dict[str, list[float | None]]


def race(
    runs: Mapping[str, Callable[[], Any]],
    *,
    synchronise: Callable[[], None],
    costly: Collection[str] = (),
    rounds: int | None = None,
    budget: float = 60.0,
    tick: Callable[[], None] = lambda: None,
) -> Times:
    """Wall times of every run in seconds, one a round; None where a costly run did not take part.

    Each round runs all of them once, in an order that rotates from round to round and turns about every second time,
    so that none always follows the same other. Warm-ups are the caller's.

    Args:
        runs: by name.
        synchronise: waits for the device; its time counts for the run before it.
        costly: names of runs that leave the race once they have used 40 % of the budget; they run once at least.
        rounds: how many; None goes on until the budget is used, from 3 rounds to 25.
        budget: seconds.
        tick: called after each run.
    """
    names = list(runs)
    times: Times = {name: [] for name in names}
    spent_on_costly = spent = slowest = 0.0
    while not _over(len(times[names[0]]), rounds, spent, slowest, budget):
        at = len(times[names[0]])
        order = names[at % len(names) :] + names[: at % len(names)]
        before = spent
        for name in order[::-1] if at % 2 else order:
            dear = name in costly
            if dear and at and rounds is None and spent_on_costly * (at + 1) / at > COSTLY_SHARE * budget:
                times[name].append(None)
                continue
            start = time.perf_counter()
            runs[name]()
            synchronise()
            seconds = time.perf_counter() - start
            times[name].append(seconds)
            spent += seconds
            spent_on_costly += dear * seconds
            tick()
        slowest = max(slowest, spent - before) if at else 0.0
    return times


def _over(done: int, rounds: int | None, spent: float, last: float, budget: float) -> bool:
    if rounds is not None:
        return done >= rounds
    return done >= MOST_ROUNDS or (done >= LEAST_ROUNDS and spent + last > budget)
