"""Detection rates: how often a change of known size is found, missed or left undecided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import compress

from scipy import stats

from harness.analysis.agreement import combined
from harness.analysis.mean_difference import Verdict
from harness.judgement.regression import compare, compare_boundaries, compare_intervals
from harness.lab.simulation.populations import Change, Population, measured_again, seed_of, stored
from harness.lab.simulation.synthetic import PLATEAU, SHALLOW, SHARP
from harness.profile.measures import FAMILIES

SIZES = (32, 64, 128, 400)
#: Repetitions go round these.
POPULATIONS = (Population(SHARP, 30, 0), Population(PLATEAU, 32, 0), Population(SHALLOW, 40, 0))


@dataclass(frozen=True, slots=True)
class Scenario:
    """A change with its title; what the harness asks of it: the curve, its boundaries and phases, or recall."""

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
    Scenario("recall -0.10", Change(lost=0.10), ("recall",)),
)


@dataclass(frozen=True, slots=True)
class Trial:
    """One comparison to simulate: a scenario by its place in `SCENARIOS`, with n samples now and in the baseline."""

    seed: int
    place: int
    paired: bool
    n: int
    repetition: int

    @property
    def scenario(self) -> Scenario:
        """The scenario at that place."""
        return SCENARIOS[self.place]

    @property
    def population(self) -> Population:
        """The population that is this repetition's turn."""
        return replace(POPULATIONS[self.repetition % len(POPULATIONS)], n=self.n)


@dataclass(frozen=True, slots=True)
class DetectionRate:
    """The outcomes of one scenario at one n: of `repetitions`, how many were found, by which question, or undecided.

    `found` counts repetitions in which some question's verdict is DIFFERS, `undecided` those in which none is and
    some is INCONCLUSIVE. `by_shape` holds (found, repetitions) of each population.
    """

    scenario: Scenario
    paired: bool
    n: int
    repetitions: int
    found: int
    undecided: int
    by_question: dict[str, int]
    by_shape: dict[str, tuple[int, int]]


def simulate_trial(trial: Trial) -> dict[str, Verdict]:
    """Return the verdict on every question of the trial's scenario."""
    scenario, population = trial.scenario, trial.population
    draw = (trial.seed, "trial", trial.place, trial.paired, trial.n, trial.repetition)
    first = seed_of(*draw, "baseline")
    baseline = stored(population.draw(first))
    if trial.paired:
        changed = measured_again(population.draw(first, scenario.change), seed_of(*draw, "again"))
    else:
        changed = population.draw(seed_of(*draw, "new"), scenario.change)
    verdict_on = {
        "curve": lambda: compare(changed, baseline, FAMILIES["inter"], only=("inter",)).verdict,
        "boundaries": lambda: compare_boundaries(changed, baseline).verdict,
        "intervals": lambda: compare_intervals(changed, baseline).verdict,
        "recall": lambda: compare(changed, baseline, FAMILIES["lens"], only=("recall_1", "recall_5")).verdict,
    }
    return {question: verdict_on[question]() for question in scenario.questions}


def tallied(trials: Iterable[Trial], verdicts: Iterable[dict[str, Verdict]]) -> list[DetectionRate]:
    """Return the cells that the trials fill, in the order of the trials."""
    cells: dict[tuple[int, bool, int], list[tuple[Trial, dict[str, Verdict]]]] = {}
    for trial, by_question in zip(trials, verdicts, strict=True):
        cells.setdefault((trial.place, trial.paired, trial.n), []).append((trial, by_question))
    return [_detection_rate(*zip(*cell, strict=True)) for cell in cells.values()]


def share_interval(count: int, of: int, level: float = 0.95) -> tuple[float, float]:
    """Return the two-sided Clopper-Pearson interval of a share seen `count` times in `of`."""
    interval = stats.binomtest(count, of).proportion_ci(level, "exact")
    return float(interval.low), float(interval.high)


def _detection_rate(trials: Sequence[Trial], verdicts: Sequence[dict[str, Verdict]]) -> DetectionRate:
    """Return the rate of the trials of one cell."""
    overall = [combined(list(by_question.values())) for by_question in verdicts]
    found = [verdict is Verdict.DIFFERS for verdict in overall]
    shapes = [trial.population.shape.name for trial in trials]
    found_shapes = Counter(compress(shapes, found))
    return DetectionRate(
        trials[0].scenario,
        trials[0].paired,
        trials[0].n,
        repetitions=len(overall),
        found=sum(found),
        undecided=overall.count(Verdict.INCONCLUSIVE),
        by_question={name: sum(row[name] is Verdict.DIFFERS for row in verdicts) for name in verdicts[0]},
        by_shape={shape: (found_shapes[shape], count) for shape, count in Counter(shapes).items()},
    )
