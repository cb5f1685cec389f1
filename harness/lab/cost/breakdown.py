"""Where the time of an observed forward pass goes: seconds per function of the probe and torch operation in it."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any

from torch.overrides import TorchFunctionMode, resolve_name

import harness.probe
from harness.lab.cost.contestants import CONTESTANTS, EVERYTHING, PLAIN
from harness.lab.cost.subject import Subject

_PROBE = str(Path(str(harness.probe.__file__)).parent)
# Wraps the model's own attention function: what is called below it is not the probe's.
_WRAPPER = "attend"
# Reading a shape or a device.
_NO_WORK = ("__get__", "__len__")
_LARGEST = 20


@dataclass(frozen=True, slots=True)
class Share:
    """Median seconds and the calls per forward pass of one torch operation in one function of the probe.

    Some microseconds of each call are the clock's own.
    """

    function: str
    operation: str
    seconds: float
    calls: int


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Median seconds of the plain pass and of what the observed one takes beyond it, and the operations of a third.

    All run in turn. What the shares leave of the extra is Python: hooks, calls, and setting them up.
    """

    plain: float
    extra: float
    shares: tuple[Share, ...]


class _Operations(TorchFunctionMode):
    """Times every torch operation that the probe asks for."""

    def __init__(self, synchronise: Callable[[], None]) -> None:
        super().__init__()
        self._synchronise = synchronise
        self.seconds: dict[tuple[str, str], float] = defaultdict(float)
        self.calls: dict[tuple[str, str], int] = defaultdict(int)

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        asker = "" if func.__name__ in _NO_WORK else _asker(sys._getframe(1))
        if not asker:
            return func(*args, **(kwargs or {}))
        self._synchronise()
        start = time.perf_counter()
        result = func(*args, **(kwargs or {}))
        self._synchronise()
        key = asker, (resolve_name(func) or getattr(func, "__name__", str(func))).rsplit(".", 1)[-1]
        self.seconds[key] += time.perf_counter() - start
        self.calls[key] += 1
        return result


def breakdown(subject: Subject, contestant: str = EVERYTHING, passes: int = 7) -> Breakdown:
    """Where the time of a contestant goes beside the plain forward pass.

    Args:
        subject: the model and its batch.
        contestant: one that observes.
        passes: how many are timed of each kind.
    """
    runs = {name: CONTESTANTS[name].prepared(subject) for name in (PLAIN, contestant)}
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    clocks = [_Operations(subject.synchronise) for _ in range(passes)]
    for turn, clock in enumerate(clocks):
        for name in sorted(runs, reverse=bool(turn % 2)):
            start = time.perf_counter()
            runs[name]()
            subject.synchronise()
            seconds[name].append(time.perf_counter() - start)
        with clock:
            runs[contestant]()
    shares = [
        Share(*key, median(clock.seconds[key] for clock in clocks), clocks[0].calls[key])
        for key in dict.fromkeys(key for clock in clocks for key in clock.seconds)
    ]
    extra = median(mine - plain for mine, plain in zip(seconds[contestant], seconds[PLAIN], strict=True))
    return Breakdown(median(seconds[PLAIN]), extra, tuple(sorted(shares, key=lambda share: -share.seconds)))


def breakdown_lines(found: Breakdown, least: float = 0.002) -> list[str]:
    """The breakdown as text: functions, then operations; what is below `least` of the plain pass is summed up."""
    counted = sum(share.seconds for share in found.shares)
    by_function: dict[str, float] = defaultdict(float)
    for share in found.shares:
        by_function[share.function] += share.seconds
    lines = [
        f"plain {found.plain * 1e3:.2f} ms, extra {found.extra * 1e3:.2f} ms: {1 + found.extra / found.plain:.3f} x",
        f"{'% plain':>8} {'ms':>8} {'calls':>6}",
    ]

    def line(seconds: float, name: str, calls: str = "") -> str:
        return f"{100 * seconds / found.plain:8.2f} {seconds * 1e3:8.2f} {calls:>6}  {name}"

    functions = sorted(by_function.items(), key=lambda item: -item[1])
    lines += [line(spent, name) for name, spent in functions if spent >= least * found.plain]
    lines.append(line(sum(spent for _, spent in functions if spent < least * found.plain), "other functions"))
    lines.append(line(found.extra - counted, "Python, hooks, and what the model loses to them"))
    lines.append("operations:")
    shown = found.shares[:_LARGEST]
    lines += [line(one.seconds, f"{one.function} -> {one.operation}", str(one.calls)) for one in shown]
    lines.append(line(counted - sum(share.seconds for share in shown), "other operations"))
    return lines


def _asker(frame: FrameType | None) -> str:
    """The nearest function of the probe that an operation was asked for by; empty where it is the model's own."""
    direct = True
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(_PROBE):
            return f"{Path(code.co_filename).stem}.{code.co_name}" if direct or code.co_name != _WRAPPER else ""
        direct, frame = False, frame.f_back
    return ""
