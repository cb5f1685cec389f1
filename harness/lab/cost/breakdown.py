"""Profile of an observed forward pass: seconds per function of the probe and torch operation in it."""

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

import numpy as np
from torch.overrides import TorchFunctionMode, resolve_name

import harness.probe
from harness.lab.cost.contestants import CONTESTANTS, EVERYTHING, PLAIN
from harness.lab.cost.race import race
from harness.lab.cost.subject import Subject

_PROBE = str(Path(str(harness.probe.__file__)).parent)
# This function wraps the model's attention function. Calls below it belong to the model.
_WRAPPER = "attend"
# Attribute look-ups such as a shape or a device, which are not timed.
_NO_WORK = ("__get__", "__len__")
_LARGEST = 20
_TIMED = "timed operations"


@dataclass(frozen=True, slots=True)
class OperationTime:
    """A torch operation in one function of the probe: median seconds and number of calls per forward pass.

    Timing adds some microseconds to each call.
    """

    function: str
    operation: str
    seconds: float
    calls: int


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Median seconds of the plain pass, the extra seconds of the observed pass, and its timed operations.

    Operations are timed in separate passes, which alternate with the plain and the observed pass. The extra seconds
    that no operation covers are Python overhead: hooks, calls and setup.
    """

    plain: float
    extra: float
    operations: tuple[OperationTime, ...]


class _OperationTimer(TorchFunctionMode):
    """A mode that times every torch operation that the probe calls."""

    def __init__(self, synchronise: Callable[[], None]) -> None:
        super().__init__()
        self._synchronise = synchronise
        self.seconds: dict[tuple[str, str], list[float]] = defaultdict(list)

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        caller = "" if func.__name__ in _NO_WORK else _probe_caller(sys._getframe(1))
        if not caller:
            return func(*args, **(kwargs or {}))
        self._synchronise()
        start = time.perf_counter()
        result = func(*args, **(kwargs or {}))
        self._synchronise()
        key = caller, (resolve_name(func) or getattr(func, "__name__", str(func))).rsplit(".", 1)[-1]
        self.seconds[key].append(time.perf_counter() - start)
        return result


def measure_breakdown(subject: Subject, contestant: str = EVERYTHING, passes: int = 7) -> Breakdown:
    """Time an observing contestant and the plain forward pass, `passes` times each."""
    runs = {name: CONTESTANTS[name].prepare(subject) for name in (PLAIN, contestant)}
    for run in runs.values():
        run()
    timers = []

    def run_timed() -> None:
        timers.append(_OperationTimer(subject.synchronise))
        with timers[-1]:
            runs[contestant]()

    times = race({**runs, _TIMED: run_timed}, synchronise=subject.synchronise, rounds=passes)
    plain, observed = np.array([times[PLAIN], times[contestant]], dtype=np.float64)
    operations = [
        OperationTime(*key, median(sum(timer.seconds[key]) for timer in timers), len(timers[0].seconds[key]))
        for key in dict.fromkeys(key for timer in timers for key in timer.seconds)
    ]
    operations.sort(key=lambda operation: -operation.seconds)
    return Breakdown(float(np.median(plain)), float(np.median(observed - plain)), tuple(operations))


def breakdown_lines(breakdown: Breakdown, minimum: float = 0.002) -> list[str]:
    """Return the breakdown as lines of text: functions, then operations.

    Functions that take less than the share `minimum` of the plain pass are summed in one line.
    """
    by_function: dict[str, float] = defaultdict(float)
    for operation in breakdown.operations:
        by_function[operation.function] += operation.seconds
    counted = sum(operation.seconds for operation in breakdown.operations)
    functions = sorted(by_function.items(), key=lambda function: -function[1])
    large = [(seconds, "", name) for name, seconds in functions if seconds >= minimum * breakdown.plain]
    small = [seconds for _, seconds in functions if seconds < minimum * breakdown.plain]
    listed = breakdown.operations[:_LARGEST]
    rows = [
        *large,
        (sum(small), "", "other functions"),
        (breakdown.extra - counted, "", "Python, hooks and their effect on the model"),
        *(
            (operation.seconds, str(operation.calls), f"{operation.function} -> {operation.operation}")
            for operation in listed
        ),
        (counted - sum(operation.seconds for operation in listed), "", "other operations"),
    ]
    lines = [
        f"{100 * seconds / breakdown.plain:8.2f} {seconds * 1e3:8.2f} {calls:>6}  {name}"
        for seconds, calls, name in rows
    ]
    lines.insert(len(large) + 2, "operations:")
    ratio = 1 + breakdown.extra / breakdown.plain
    title = f"plain {breakdown.plain * 1e3:.2f} ms, extra {breakdown.extra * 1e3:.2f} ms: {ratio:.3f} x"
    return [title, f"{'% plain':>8} {'ms':>8} {'calls':>6}", *lines]


def _probe_caller(frame: FrameType | None) -> str:
    """Return the innermost function of the probe that called an operation, or "" if the model called it."""
    direct = True
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(_PROBE):
            return f"{Path(code.co_filename).stem}.{code.co_name}" if direct or code.co_name != _WRAPPER else ""
        direct, frame = False, frame.f_back
    return ""
