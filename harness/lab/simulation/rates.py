"""Rates of the decision rule: false alarms without a change, and detections of changes of known size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import compress

from scipy import stats

from harness.analysis.agreement import combine_verdicts
from harness.analysis.mean_difference import Verdict
from harness.baselines.store import Baseline
from harness.judgement.regression import compare, compare_boundaries, compare_intervals
from harness.lab.simulation.populations import PAIRS, Change, Population, remeasure, seed_of, to_baseline
from harness.lab.simulation.synthetic import PLATEAU, SHALLOW, SHARP
from harness.profile.measures import FAMILIES
from harness.profile.profile import Profile

SIZES = (32, 64, 128, 400)
#: Repetitions cycle through these populations.
POPULATIONS = (Population(SHARP, 30, 0), Population(PLATEAU, 32, 0), Population(SHALLOW, 40, 0))
#: The alarms of a suite, one line each, and the number of assertions by verdict.
SuiteResult = tuple[list[str], Counter[Verdict]]


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite to simulate: paired suites measure the same samples again, unpaired suites draw new samples."""

    seed: int
    paired: bool
    index: int


@dataclass(frozen=True, slots=True)
class Alarms:
    """The false alarms of many suites: the number of suites with an alarm, and one line per alarm."""

    paired: bool
    suites: int
    alarmed: int
    lines: tuple[str, ...]
    verdicts: Counter[Verdict]

    @property
    def assertions(self) -> int:
        """The number of verdicts."""
        return self.verdicts.total()


def pair_verdicts(measured: Profile, baseline: Baseline) -> dict[str, Verdict]:
    """Return the verdict of every regression assertion on one pair, by measure or question."""
    verdicts = {
        finding.measure.name: finding.agreement.verdict
        for family in FAMILIES.values()
        for finding in compare(measured, baseline, family).findings
    }
    verdicts["boundaries"] = compare_boundaries(measured, baseline).verdict
    verdicts["intervals"] = compare_intervals(measured, baseline).verdict
    return verdicts


def simulate_suite(suite: Suite) -> SuiteResult:
    """Return the alarms and verdicts of all assertions on the four pairs without a change."""
    alarms, verdicts = [], Counter[Verdict]()
    for index, population in enumerate(PAIRS):
        draw = (suite.seed, "suite", suite.paired, suite.index, index)
        baseline_profile = population.draw(seed_of(*draw, "baseline"))
        measured = (
            remeasure(baseline_profile, seed_of(*draw, "again"))
            if suite.paired
            else population.draw(seed_of(*draw, "new"))
        )
        for name, verdict in pair_verdicts(measured, to_baseline(baseline_profile)).items():
            verdicts[verdict] += 1
            if verdict is Verdict.DIFFERS:
                alarms.append(f"suite {suite.index}, {population.name}: {name}")
    return alarms, verdicts


def collect_alarms(results: Sequence[SuiteResult], *, paired: bool) -> Alarms:
    """Return the false alarms of all suites."""
    return Alarms(
        paired=paired,
        suites=len(results),
        alarmed=sum(bool(alarms) for alarms, _ in results),
        lines=tuple(line for alarms, _ in results for line in alarms),
        verdicts=sum((verdicts for _, verdicts in results), Counter[Verdict]()),
    )


@dataclass(frozen=True, slots=True)
class Scenario:
    """A change with its title and the questions that are judged: the curve, its boundaries and phases, or recall."""

    title: str
    change: Change
    questions: tuple[str, ...] = ("curve", "boundaries", "intervals")


SCENARIOS = (
    Scenario("nothing changed", Change(), ("curve", "boundaries", "intervals", "recall")),
    Scenario("shift by 1 layer", Change(layers=1.0)),
    Scenario("shift by 2 layers", Change(layers=2.0)),
    Scenario("shift by 3 layers", Change(layers=3.0)),
    Scenario("phase II flattened", Change(flattened=True)),
    Scenario("stretched x 1.25", Change(stretch=1.25)),
    Scenario("stretched x 1.1", Change(stretch=1.1)),
    Scenario("recall -0.10", Change(lost_recall=0.10), ("recall",)),
)


@dataclass(frozen=True, slots=True)
class Trial:
    """A comparison to simulate: the index of its scenario, with n samples in the measurement and in the baseline."""

    seed: int
    scenario_index: int
    paired: bool
    n: int
    repetition: int

    @property
    def scenario(self) -> Scenario:
        """The scenario of the trial."""
        return SCENARIOS[self.scenario_index]

    @property
    def population(self) -> Population:
        """The population of this repetition."""
        return replace(POPULATIONS[self.repetition % len(POPULATIONS)], n=self.n)


@dataclass(frozen=True, slots=True)
class DetectionRate:
    """The outcomes of a scenario at one n.

    `detected` counts the repetitions in which at least one verdict is DIFFERS. `inconclusive` counts those in which
    none is DIFFERS and at least one is INCONCLUSIVE. `by_question` has the detections of each question, `by_shape` has
    (detected, repetitions) of each population.
    """

    scenario: Scenario
    paired: bool
    n: int
    repetitions: int
    detected: int
    inconclusive: int
    by_question: dict[str, int]
    by_shape: dict[str, tuple[int, int]]


def simulate_trial(trial: Trial) -> dict[str, Verdict]:
    """Return the verdict on every question of the trial's scenario."""
    scenario, population = trial.scenario, trial.population
    draw = (trial.seed, "trial", trial.scenario_index, trial.paired, trial.n, trial.repetition)
    baseline_seed = seed_of(*draw, "baseline")
    baseline = to_baseline(population.draw(baseline_seed))
    if trial.paired:
        changed = remeasure(population.draw(baseline_seed, scenario.change), seed_of(*draw, "again"))
    else:
        changed = population.draw(seed_of(*draw, "new"), scenario.change)
    verdict_on = {
        "curve": lambda: compare(changed, baseline, FAMILIES["inter"], only=("inter",)).verdict,
        "boundaries": lambda: compare_boundaries(changed, baseline).verdict,
        "intervals": lambda: compare_intervals(changed, baseline).verdict,
        "recall": lambda: compare(changed, baseline, FAMILIES["lens"], only=("recall_1", "recall_5")).verdict,
    }
    return {question: verdict_on[question]() for question in scenario.questions}


def tally_trials(trials: Iterable[Trial], verdicts: Iterable[dict[str, Verdict]]) -> list[DetectionRate]:
    """Return one detection rate per scenario, pairing and n, in the order of the trials."""
    cells: dict[tuple[int, bool, int], list[tuple[Trial, dict[str, Verdict]]]] = {}
    for trial, by_question in zip(trials, verdicts, strict=True):
        cells.setdefault((trial.scenario_index, trial.paired, trial.n), []).append((trial, by_question))
    return [_detection_rate(*zip(*cell, strict=True)) for cell in cells.values()]


def share_interval(count: int, total: int) -> tuple[float, float]:
    """Return the two-sided Clopper-Pearson interval (95 %) of the share `count` / `total`."""
    interval = stats.binomtest(count, total).proportion_ci(0.95, "exact")
    return float(interval.low), float(interval.high)


def _detection_rate(trials: Sequence[Trial], verdicts: Sequence[dict[str, Verdict]]) -> DetectionRate:
    overall = [combine_verdicts(list(by_question.values())) for by_question in verdicts]
    detected = [verdict is Verdict.DIFFERS for verdict in overall]
    shapes = [trial.population.shape.name for trial in trials]
    detected_by_shape = Counter(compress(shapes, detected))
    return DetectionRate(
        trials[0].scenario,
        trials[0].paired,
        trials[0].n,
        repetitions=len(overall),
        detected=sum(detected),
        inconclusive=overall.count(Verdict.INCONCLUSIVE),
        by_question={name: sum(row[name] is Verdict.DIFFERS for row in verdicts) for name in verdicts[0]},
        by_shape={shape: (detected_by_shape[shape], count) for shape, count in Counter(shapes).items()},
    )
