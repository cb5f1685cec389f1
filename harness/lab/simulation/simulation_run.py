"""A run of the simulation: the plan of its draws, and their outcome on any number of processes."""

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
    collect_alarms,
    simulate_suite,
    simulate_trial,
    tally_trials,
)

#: Changes that paired samples of this n must detect, and the required share of repetitions.
REQUIRED_CHANGES, REQUIRED_N, REQUIRED_SHARE = ("shift by 2 layers", "phase II flattened"), 64, 0.99
_REQUIRED_FACTOR = 7
#: Tasks per chunk that a process receives.
_CHUNK = 4

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class SimulationPlan:
    """Paired `suites`, a tenth as many unpaired ones, and `repetitions` of each scenario at each of the `sizes`.

    Cells with a required rate have seven times as many repetitions.
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
        first_trials = [Trial(self.seed, scenario, paired, n, 0) for paired, scenario, n in cells]
        return [
            replace(first, repetition=repetition)
            for first in first_trials
            for repetition in range(self.repetitions * (_REQUIRED_FACTOR if is_required(first) else 1))
        ]


@dataclass(frozen=True, slots=True)
class SimulationOutcome:
    """The results of a plan: the alarms of the `paired` and `unpaired` suites, and the cells of the detection table.

    `seconds` is the wall time, `cpu_seconds` the total processor time.
    """

    plan: SimulationPlan
    paired: Alarms
    unpaired: Alarms
    cells: tuple[DetectionRate, ...]
    jobs: int
    seconds: float
    cpu_seconds: float

    @property
    def missed_requirements(self) -> list[str]:
        """A sentence for each required rate that was missed."""
        alarmed, suites = self.paired.alarmed, self.paired.suites
        return ([f"{alarmed} of {suites} paired suites raised a false alarm; none is allowed."] if alarmed else []) + [
            f"{cell.scenario.title} at n = {cell.n}, paired, was detected in {cell.detected} of {cell.repetitions} "
            f"repetitions; {REQUIRED_SHARE:.0%} are required."
            for cell in filter(is_required, self.cells)
            if cell.detected < REQUIRED_SHARE * cell.repetitions
        ]


def is_required(cell: Trial | DetectionRate) -> bool:
    """Return True if the change must be detected at this n."""
    return cell.paired and cell.n == REQUIRED_N and cell.scenario.title in REQUIRED_CHANGES


def full_plan(seed: int) -> SimulationPlan:
    """Return the plan of the published tables; it takes below 20 minutes on two cores."""
    return SimulationPlan(seed, suites=1000, repetitions=60)


def quick_plan(seed: int) -> SimulationPlan:
    """Return a plan for the tests; it takes about 20 seconds on one core."""
    return SimulationPlan(seed, suites=3, repetitions=3, sizes=(64,))


def run_plan(plan: SimulationPlan, jobs: int = 1) -> SimulationOutcome:
    """Run a plan on `jobs` processes; their number affects only the duration."""
    begin, cpu_begin = time.monotonic(), _cpu_seconds()
    trials = plan.all_trials()
    context = multiprocessing.get_context("spawn")
    with nullcontext() if jobs == 1 else ProcessPoolExecutor(jobs, mp_context=context) as pool:
        suites = _run_all(pool, simulate_suite, plan.all_suites(), "suites")
        verdicts = _run_all(pool, simulate_trial, trials, "comparisons with a known change")
    return SimulationOutcome(
        plan=plan,
        paired=collect_alarms(suites[: plan.suites], paired=True),
        unpaired=collect_alarms(suites[plan.suites :], paired=False),
        cells=tuple(tally_trials(trials, verdicts)),
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
    """Return the processor time of this process and its finished children."""
    return sum(os.times()[:4])
