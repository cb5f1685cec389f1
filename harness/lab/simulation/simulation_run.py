"""Running a plan on several processes, with a progress bar, to the same outcome on any number of them."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from tqdm import tqdm

from harness.lab.simulation.rates import Cell, simulate_trial, tallied
from harness.lab.simulation.suite_plan import BARRED_SHARE, Plan, has_bar
from harness.lab.simulation.suites import Alarms, gathered, simulate_suite

#: Tasks handed to a process at once.
_CHUNK = 4

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a plan: the alarms of the `paired` and `unpaired` suites, and the cells of the detection table.

    `seconds` is how long it took and `cpu_seconds` the time of all processors together.
    """

    plan: Plan
    paired: Alarms
    unpaired: Alarms
    cells: tuple[Cell, ...]
    jobs: int
    seconds: float
    cpu_seconds: float

    @property
    def missed(self) -> list[str]:
        """The bars that were missed, one sentence each."""
        alarmed, suites = self.paired.alarmed, self.paired.suites
        return ([f"{alarmed} of {suites} paired suites raised a false alarm, none may."] if alarmed else []) + [
            f"{cell.scenario.title} at n = {cell.n}, paired, was found in {cell.found} of {cell.repetitions} "
            f"repetitions, {BARRED_SHARE:.0%} are asked for."
            for cell in self.cells
            if has_bar(cell.scenario.title, cell.n, paired=cell.paired) and cell.found < BARRED_SHARE * cell.repetitions
        ]


def run_plan(plan: Plan, jobs: int = 1) -> Outcome:
    """Returns the outcome of a plan on `jobs` processes; but for its duration it does not depend on their number."""
    begin = time.monotonic()
    trials = plan.all_trials()
    with _processes(jobs) as pool:
        suites, suite_seconds = _all_of(pool, simulate_suite, plan.all_suites(), "suites")
        verdicts, trial_seconds = _all_of(pool, simulate_trial, trials, "comparisons with a known change")
    return Outcome(
        plan=plan,
        paired=gathered(suites[: plan.suites], paired=True),
        unpaired=gathered(suites[plan.suites :], paired=False),
        cells=tuple(tallied(trials, verdicts)),
        jobs=jobs,
        seconds=time.monotonic() - begin,
        cpu_seconds=suite_seconds + trial_seconds,
    )


def _processes(jobs: int) -> ProcessPoolExecutor | nullcontext[None]:
    return nullcontext() if jobs == 1 else ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))


def _all_of(
    pool: Executor | None, simulate: Callable[[Task], Result], tasks: Sequence[Task], what: str
) -> tuple[list[Result], float]:
    """The results in the order of the tasks, and the processors' seconds."""
    timed = partial(_timed, simulate)
    results = map(timed, tasks) if pool is None else pool.map(timed, tasks, chunksize=_CHUNK)
    try:
        done = list(tqdm(results, desc=what, total=len(tasks), disable=None))
    except BaseException:
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)
        raise
    return [result for result, _ in done], sum(seconds for _, seconds in done)


def _timed(simulate: Callable[[Task], Result], task: Task) -> tuple[Result, float]:
    begin = time.process_time()
    return simulate(task), time.process_time() - begin
