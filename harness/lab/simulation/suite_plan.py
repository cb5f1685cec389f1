"""What a run of the simulation draws: how many suites, and how many repetitions of each scenario."""

from __future__ import annotations

from dataclasses import dataclass

from harness.lab.simulation.rates import SCENARIOS, SIZES, Trial
from harness.lab.simulation.suites import Suite

#: Changes that must be found at this n, measured in pairs, and in what share of the repetitions.
BARRED, BARRED_N, BARRED_SHARE = ("shift by 2 layers", "phase II flattened"), 64, 0.99
_BARRED_TIMES = 7


@dataclass(frozen=True, slots=True)
class Plan:
    """Paired `suites`, a tenth as many unpaired ones, and `repetitions` of each scenario at each of the `sizes`.

    The cells that have a bar are repeated seven times as often.
    """

    seed: int
    suites: int
    repetitions: int
    sizes: tuple[int, ...] = SIZES

    def all_suites(self) -> list[Suite]:
        """Returns the suites to simulate, the paired ones first."""
        counts = {True: self.suites, False: -(-self.suites // 10)}
        return [Suite(self.seed, paired, i) for paired, count in counts.items() for i in range(count)]

    def all_trials(self) -> list[Trial]:
        """Returns the trials to simulate, cell by cell."""
        return [
            Trial(self.seed, place, paired, n, repetition)
            for paired in (True, False)
            for place, scenario in enumerate(SCENARIOS)
            for n in self.sizes
            for repetition in range(
                self.repetitions * (_BARRED_TIMES if has_bar(scenario.title, n, paired=paired) else 1)
            )
        ]


def has_bar(title: str, n: int, *, paired: bool) -> bool:
    """Whether the change of this title must be found."""
    return paired and n == BARRED_N and title in BARRED


def full_plan(seed: int) -> Plan:
    """Returns the plan whose tables are published: below 20 minutes on two cores."""
    return Plan(seed, suites=1000, repetitions=60)


def quick_plan(seed: int) -> Plan:
    """Returns a plan of about 20 seconds on one core, for the tests."""
    return Plan(seed, suites=3, repetitions=3, sizes=(64,))
