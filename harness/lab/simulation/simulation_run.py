"""A run of the simulation on several processes: the plan of its draws, and their outcome, the same on any number."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import product
from typing import TypeVar

from tqdm import tqdm

from harness.lab.simulation.rates import (
    SCENARIOS,
    SIZES,
    Alarms,
    DetectionRate,
    Suite,
    Trial,
    gathered,
    simulate_suite,
    simulate_trial,
    tallied,
)

#: Changes that must be found at this n, measured in pairs, and in what share of the repetitions.
BARRED, BARRED_N, BARRED_SHARE = ("shift by 2 layers", "phase II flattened"), 64, 0.99
_BARRED_TIMES = 7
#: Tasks handed to a process at once.
_CHUNK = 4

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class SimulationPlan:
    """Paired `suites`, a tenth as many unpaired ones, and `repetitions` of each scenario at each of the `sizes`.

    The cells that have a bar are repeated seven times as often.
    """

    seed: int
    suites: int
    repetitions: int
    sizes: tuple[int, ...] = SIZES

    def all_suites(self) -> list[Suite]:
        """Return the suites to simulate, the paired ones first."""
        counts = {True: self.suites, False: -(-self.suites // 10)}
        return [Suite(self.seed, paired, i) for paired, count in counts.items() for i in range(count)]

    def all_trials(self) -> list[Trial]:
        """Return the trials to simulate, cell by cell."""
        cells = product((True, False), range(len(SCENARIOS)), self.sizes)
        firsts = [Trial(self.seed, scenario, paired, n, 0) for paired, scenario, n in cells]
        return [
            replace(first, repetition=repetition)
            for first in firsts
            for repetition in range(self.repetitions * (_BARRED_TIMES if has_bar(first) else 1))
        ]


@dataclass(frozen=True, slots=True)
class SimulationOutcome:
    """The results of a plan: the alarms of the `paired` and `unpaired` suites, and the cells of the detection table.

    `seconds` is how long it took and `cpu_seconds` the time of all processors together.
    """

    plan: SimulationPlan
    paired: Alarms
    unpaired: Alarms
    cells: tuple[DetectionRate, ...]
    jobs: int
    seconds: float
    cpu_seconds: float

    @property
    def missed(self) -> list[str]:
        """The bars that were missed, one sentence each."""
        alarmed, suites = self.paired.alarmed, self.paired.suites
        return ([f"{alarmed} of {suites} paired suites raised a false alarm, none may."] if alarmed else []) + [
            f"{cell.scenario.title} at n = {cell.n}, paired, was found in {cell.detected} of {cell.repetitions} "
            f"repetitions, {BARRED_SHARE:.0%} are asked for."
            for cell in filter(has_bar, self.cells)
            if cell.detected < BARRED_SHARE * cell.repetitions
        ]


def has_bar(cell: Trial | DetectionRate) -> bool:
    """Return True if this change must be found at this n."""
    return cell.paired and cell.n == BARRED_N and cell.scenario.title in BARRED


def full_plan(seed: int) -> SimulationPlan:
    """Return the plan whose tables are published: below 20 minutes on two cores."""
    return SimulationPlan(seed, suites=1000, repetitions=60)


def quick_plan(seed: int) -> SimulationPlan:
    """Return a plan of about 20 seconds on one core, for the tests."""
    return SimulationPlan(seed, suites=3, repetitions=3, sizes=(64,))


def run_plan(plan: SimulationPlan, jobs: int = 1) -> SimulationOutcome:
    """Return the outcome of a plan on `jobs` processes; but for its duration it does not depend on their number."""
    begin, cpu_begin = time.monotonic(), _cpu_seconds()
    trials = plan.all_trials()
    spawning = multiprocessing.get_context("spawn")
    with nullcontext() if jobs == 1 else ProcessPoolExecutor(jobs, mp_context=spawning) as pool:
        suites = _run_all(pool, simulate_suite, plan.all_suites(), "suites")
        verdicts = _run_all(pool, simulate_trial, trials, "comparisons with a known change")
    return SimulationOutcome(
        plan=plan,
        paired=gathered(suites[: plan.suites], paired=True),
        unpaired=gathered(suites[plan.suites :], paired=False),
        cells=tuple(tallied(trials, verdicts)),
        jobs=jobs,
        seconds=time.monotonic() - begin,
        cpu_seconds=_cpu_seconds() - cpu_begin,
    )


def _run_all(
    pool: Executor | None, simulate: Callable[[Task], Result], tasks: Sequence[Task], title: str
) -> list[Result]:
    results = map(simulate, tasks) if pool is None else pool.map(simulate, tasks, chunksize=_CHUNK)
    try:
        return list(tqdm(results, desc=title, total=len(tasks), disable=None))
    except BaseException:
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)
        raise


def _cpu_seconds() -> float:
    """Return the processor time of this process and of its children that have ended."""
    return sum(os.times()[:4])
