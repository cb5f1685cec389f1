"""Detection rates: how often a change of known size is found, missed or left undecided."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from scipy import stats

from harness.analysis.agreement import combined
from harness.analysis.mean_difference import Verdict
from harness.judgement.regression import compare, compare_boundaries, compare_intervals
from harness.lab.simulation.populations import Change, Population, measured_again, stored
from harness.lab.simulation.seeds import seed_of
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
    scenario: int
    paired: bool
    n: int
    repetition: int

    @property
    def population(self) -> Population:
        """The population that is this repetition's turn."""
        return replace(POPULATIONS[self.repetition % len(POPULATIONS)], n=self.n)


@dataclass(frozen=True, slots=True)
class Cell:
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
    """Returns the verdict on every question of the trial's scenario."""
    scenario, population = SCENARIOS[trial.scenario], trial.population
    here = (trial.seed, "trial", trial.scenario, trial.paired, trial.n, trial.repetition)
    first = seed_of(*here, "baseline")
    baseline = stored(population.draw(first))
    if trial.paired:
        now = measured_again(population.draw(first, scenario.change), seed_of(*here, "again"))
    else:
        now = population.draw(seed_of(*here, "new"), scenario.change)
    asked = {
        "curve": lambda: compare(now, baseline, FAMILIES["inter"], only=("inter",)).verdict,
        "boundaries": lambda: compare_boundaries(now, baseline).verdict,
        "intervals": lambda: compare_intervals(now, baseline).verdict,
        "recall": lambda: compare(now, baseline, FAMILIES["lens"], only=("recall_1", "recall_5")).verdict,
    }
    return {question: asked[question]() for question in scenario.questions}


def tallied(trials: Iterable[Trial], verdicts: Iterable[dict[str, Verdict]]) -> list[Cell]:
    """Returns the cells that the trials fill, in the order of the trials."""
    cells: dict[tuple[int, bool, int], Cell] = {}
    for trial, said in zip(trials, verdicts, strict=True):
        scenario = SCENARIOS[trial.scenario]
        key = (trial.scenario, trial.paired, trial.n)
        cell = cells.get(key) or Cell(scenario, trial.paired, trial.n, 0, 0, 0, dict.fromkeys(said, 0), {})
        verdict, shape = combined(list(said.values())), trial.population.shape.name
        is_found = verdict is Verdict.DIFFERS
        before = cell.by_shape.get(shape, (0, 0))
        cells[key] = replace(
            cell,
            repetitions=cell.repetitions + 1,
            found=cell.found + is_found,
            undecided=cell.undecided + (verdict is Verdict.INCONCLUSIVE),
            by_question={name: cell.by_question[name] + (said[name] is Verdict.DIFFERS) for name in said},
            by_shape=cell.by_shape | {shape: (before[0] + is_found, before[1] + 1)},
        )
    return list(cells.values())


def share_interval(count: int, of: int, level: float = 0.95) -> tuple[float, float]:
    """Returns the two-sided Clopper-Pearson interval of a share seen `count` times in `of`."""
    interval = stats.binomtest(count, of).proportion_ci(level, "exact")
    return float(interval.low), float(interval.high)
