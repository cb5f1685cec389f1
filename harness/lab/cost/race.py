"""Time and memory of contestants that run in turn, round after round, so that a drifting machine strikes them alike."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch

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
    for at in range(MOST_ROUNDS if rounds is None else rounds):
        if rounds is None and at >= LEAST_ROUNDS and spent + slowest > budget:
            break
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


def peak_bytes(run: Callable[[], Any], device: torch.device) -> tuple[int, Any]:
    """Bytes of tensors that `run` holds at its peak, beyond those that exist when it starts; and what it returns.

    On a GPU it is what torch's allocator counts itself. On a CPU torch counts nothing, but its profiler records every
    allocation and release of a tensor: their running sum is exact to the byte, for whatever torch allocates; what a
    library takes for itself inside an operation is not seen.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        result = run()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device)) - int(before), result
    # Else it writes to the terminal that it starts, that it stops, and that there is no GPU.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak, result
