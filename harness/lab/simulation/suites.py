"""Simulated suites: every assertion on four synthetic pairs with nothing changed, and the alarms they raise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from harness.analysis.mean_difference import Verdict
from harness.baselines.store import Baseline
from harness.judgement.regression import compare, compare_boundaries, compare_intervals
from harness.lab.simulation.populations import PAIRS, measured_again, stored
from harness.lab.simulation.seeds import seed_of
from harness.profile.measures import FAMILIES
from harness.profile.profile import Profile


@dataclass(frozen=True, slots=True)
class Suite:
    """One suite to simulate: paired measures the same samples again, unpaired draws new ones of the same population."""

    seed: int
    paired: bool
    index: int


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """What a suite said: its `alarms`, one line each, and how many assertions ended in each verdict."""

    alarms: tuple[str, ...]
    verdicts: Counter[Verdict]


@dataclass(frozen=True, slots=True)
class Alarms:
    """The false alarms of many suites: in how many suites there was one, and each of them in words."""

    paired: bool
    suites: int
    alarmed: int
    lines: tuple[str, ...]
    verdicts: Counter[Verdict]

    @property
    def assertions(self) -> int:
        """The number of verdicts reached."""
        return self.verdicts.total()


def assertions(now: Profile, baseline: Baseline) -> dict[str, Verdict]:
    """Returns the verdict of every regression assertion on one pair, by the name of its measure or question."""
    found = {
        finding.measure.name: finding.agreement.verdict
        for family in FAMILIES.values()
        for finding in compare(now, baseline, family).findings
    }
    found["boundaries"] = compare_boundaries(now, baseline).verdict
    found["intervals"] = compare_intervals(now, baseline).verdict
    return found


def simulate_suite(suite: Suite) -> SuiteResult:
    """Returns what all assertions on the four pairs say where nothing changed."""
    alarms, verdicts = [], Counter[Verdict]()
    for place, population in enumerate(PAIRS):
        here = (suite.seed, "suite", suite.paired, suite.index, place)
        then = population.draw(seed_of(*here, "baseline"))
        now = measured_again(then, seed_of(*here, "again")) if suite.paired else population.draw(seed_of(*here, "new"))
        for name, verdict in assertions(now, stored(then)).items():
            verdicts[verdict] += 1
            if verdict is Verdict.DIFFERS:
                alarms.append(f"suite {suite.index}, {population.name}: {name}")
    return SuiteResult(tuple(alarms), verdicts)


def gathered(results: Iterable[SuiteResult], *, paired: bool) -> Alarms:
    """Returns the false alarms of all suites together."""
    every = list(results)
    return Alarms(
        paired=paired,
        suites=len(every),
        alarmed=sum(bool(result.alarms) for result in every),
        lines=tuple(line for result in every for line in result.alarms),
        verdicts=sum((result.verdicts for result in every), Counter[Verdict]()),
    )
