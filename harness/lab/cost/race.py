"""Time and memory of contestants that run interleaved, so that drift of the machine affects all of them equally."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch

MIN_ROUNDS, MAX_ROUNDS = 3, 25
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
    """Measure the wall time of every run in each round, in seconds; None for a round that a costly run skipped.

    Each round calls every run once. The order rotates from round to round and is reversed in every second round, so no
    run always follows the same other run. The caller does the warm-up.

    Args:
        runs: functions by name.
        synchronise: waits for the device; its time counts towards the run before it.
        costly: names of runs that are skipped once they have used 40 % of the budget; each runs at least once.
        rounds: the number of rounds; None continues until the budget is used, with 3 to 25 rounds.
        budget: seconds.
        tick: called after each run.
    """
    names = list(runs)
    times: Times = {name: [] for name in names}
    spent_on_costly = spent = slowest = 0.0
    for index in range(MAX_ROUNDS if rounds is None else rounds):
        if rounds is None and index >= MIN_ROUNDS and spent + slowest > budget:
            break
        order = names[index % len(names) :] + names[: index % len(names)]
        before = spent
        for name in order[::-1] if index % 2 else order:
            is_costly = name in costly
            if is_costly and index and rounds is None and spent_on_costly * (index + 1) / index > COSTLY_SHARE * budget:
                times[name].append(None)
                continue
            start = time.perf_counter()
            runs[name]()
            synchronise()
            seconds = time.perf_counter() - start
            times[name].append(seconds)
            spent += seconds
            spent_on_costly += is_costly * seconds
            tick()
        slowest = max(slowest, spent - before) if index else 0.0
    return times


def peak_bytes(run: Callable[[], Any], device: torch.device) -> tuple[int, Any]:
    """Return the peak bytes of tensors that `run` allocates beyond those that exist at its start, and its result.

    On a GPU this is the count of torch's allocator. On a CPU it is the running sum of the allocations and releases that
    torch's profiler records. The sum is exact for torch's tensors; memory that a library allocates inside an operation
    is not included.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        result = run()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device)) - int(before), result
    # Suppress the profiler's start, stop and no-GPU messages on the terminal.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    allocated = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        allocated += event.nbytes()
        peak = max(peak, allocated)
    return peak, result
