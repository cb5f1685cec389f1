"""Simulated suites: every assertion on four synthetic pairs with nothing changed, and the alarms they raise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.mean_difference import Verdict
from harness.baselines.store import Baseline
from harness.judgement.regression import compare, compare_boundaries, compare_intervals
from harness.lab.simulation.populations import PAIRS, measured_again, seed_of, stored
from harness.profile.measures import FAMILIES
from harness.profile.profile import Profile

#: The alarms of a suite, a line each, and how many assertions ended in each verdict.
SuiteResult = tuple[list[str], Counter[Verdict]]


@dataclass(frozen=True, slots=True)
class Suite:
    """One suite to simulate: paired measures the same samples again, unpaired draws new ones of the same population."""

    seed: int
    paired: bool
    index: int


@dataclass(frozen=True, slots=True)
class Alarms:
    """The false alarms of many suites: the number of suites with an alarm, and each alarm in words."""

    paired: bool
    suites: int
    alarmed: int
    lines: tuple[str, ...]
    verdicts: Counter[Verdict]

    @property
    def assertions(self) -> int:
        """The number of verdicts reached."""
        return self.verdicts.total()


def assertions(measured: Profile, baseline: Baseline) -> dict[str, Verdict]:
    """Return the verdict of every regression assertion on one pair, by the name of its measure or question."""
    verdicts = {
        finding.measure.name: finding.agreement.verdict
        for family in FAMILIES.values()
        for finding in compare(measured, baseline, family).findings
    }
    verdicts["boundaries"] = compare_boundaries(measured, baseline).verdict
    verdicts["intervals"] = compare_intervals(measured, baseline).verdict
    return verdicts


def simulate_suite(suite: Suite) -> SuiteResult:
    """Return the alarms and verdicts of all assertions on the four pairs, where nothing changed."""
    alarms, verdicts = [], Counter[Verdict]()
    for index, population in enumerate(PAIRS):
        draw = (suite.seed, "suite", suite.paired, suite.index, index)
        first = population.draw(seed_of(*draw, "baseline"))
        again = (
            measured_again(first, seed_of(*draw, "again")) if suite.paired else population.draw(seed_of(*draw, "new"))
        )
        for name, verdict in assertions(again, stored(first)).items():
            verdicts[verdict] += 1
            if verdict is Verdict.DIFFERS:
                alarms.append(f"suite {suite.index}, {population.name}: {name}")
    return alarms, verdicts


def gathered(results: Sequence[SuiteResult], *, paired: bool) -> Alarms:
    """Return the false alarms of all suites together."""
    return Alarms(
        paired=paired,
        suites=len(results),
        alarmed=sum(bool(alarms) for alarms, _ in results),
        lines=tuple(line for alarms, _ in results for line in alarms),
        verdicts=sum((verdicts for _, verdicts in results), Counter[Verdict]()),
    )
