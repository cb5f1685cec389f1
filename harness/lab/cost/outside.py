"""How much of a pair's measurement is not the model's forward pass."""

from __future__ import annotations

import time
from typing import Any

from harness.lab.cost.results import Outside
from harness.measurement.measure import measure
from harness.models.vlm import Vlm


def outside_share(vlm: Vlm, dataset: str, **options: Any) -> Outside:
    """Seconds of one `measure(vlm, dataset, **options)` and of the forward passes in it.

    A forward pass is a call of the model itself, with whatever the probe does while its layers run; the pictures are
    read, the prompts encoded, the readings settled, gathered and assembled outside. The calls are timed in the thread
    that makes them. On a GPU a call returns before its work is done, so that the share is not one of the device.
    """
    spent, started = 0.0, 0.0

    def before(*_: Any) -> None:
        nonlocal started
        started = time.perf_counter()

    def after(*_: Any) -> None:
        nonlocal spent
        spent += time.perf_counter() - started

    handles = [
        vlm.model.register_forward_pre_hook(before, prepend=True),
        vlm.model.register_forward_hook(after, always_call=True),
    ]
    try:
        start = time.perf_counter()
        profile = measure(vlm, dataset, **options)
        wall = time.perf_counter() - start
    finally:
        for handle in handles:
            handle.remove()
    return Outside(profile.pair, profile.n, wall, spent)
