"""The most memory that a run holds at a time, beyond what was there before it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch


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
