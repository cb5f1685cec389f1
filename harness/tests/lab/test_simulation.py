from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.judgement.regression import DECLARED_ASSERTIONS
from harness.lab.simulation.__main__ import main, report
from harness.lab.simulation.populations import seed_of
from harness.lab.simulation.rates import SCENARIOS, SIZES, share_interval
from harness.lab.simulation.rates_page import error_rates_page
from harness.lab.simulation.simulation_run import (
    REQUIRED_CHANGES,
    REQUIRED_N,
    SimulationOutcome,
    SimulationPlan,
    full_plan,
    quick_plan,
    run_plan,
)
from harness.tests.support.case_runs import ROOT

COMMAND = "python -m harness.lab.simulation --quick"


@pytest.fixture(scope="module")
def outcome() -> SimulationOutcome:
    return run_plan(quick_plan(seed=0))


@pytest.mark.slow
def test_unchanged_pairs_raise_no_alarm(outcome: SimulationOutcome) -> None:
    for alarms in (outcome.paired, outcome.unpaired):
        assert (alarms.alarmed, alarms.lines) == (0, ())
        assert alarms.assertions == alarms.suites * DECLARED_ASSERTIONS
    nothing = [cell for cell in outcome.cells if cell.scenario.title == "nothing changed"]
    assert [(cell.detected, cell.repetitions) for cell in nothing] == [(0, 3), (0, 3)]


@pytest.mark.slow
@pytest.mark.parametrize("title", REQUIRED_CHANGES)
def test_a_required_change_is_always_detected(outcome: SimulationOutcome, title: str) -> None:
    (cell,) = [c for c in outcome.cells if c.scenario.title == title and c.paired and c.n == REQUIRED_N]
    assert cell.detected == cell.repetitions == 21
    assert cell.by_shape == {"sharp": (7, 7), "plateau": (7, 7), "shallow": (7, 7)}
    assert outcome.missed_requirements == []


@pytest.mark.slow
def test_counts_of_a_cell_are_consistent(outcome: SimulationOutcome) -> None:
    for cell in outcome.cells:
        assert max(cell.by_question.values()) <= cell.detected <= cell.repetitions - cell.inconclusive
        assert set(cell.by_question) == set(cell.scenario.questions)
        assert cell.detected == sum(detected for detected, _ in cell.by_shape.values())


@pytest.mark.slow
def test_a_missed_requirement_gives_exit_code_1(outcome: SimulationOutcome, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(outcome, None, COMMAND) == 0
    assert "MISSED" not in capsys.readouterr().out
    alarmed = replace(outcome, paired=replace(outcome.paired, alarmed=1, lines=("suite 2, sharp: image",)))
    assert report(alarmed, None, COMMAND) == 1
    output = capsys.readouterr().out
    assert "MISSED: 1 of 3 paired suites raised a false alarm; none is allowed." in output
    assert "false alarm: suite 2, sharp: image" in output
    cells = tuple(replace(cell, detected=20) if cell.repetitions == 21 else cell for cell in outcome.cells)
    assert len(replace(outcome, cells=cells).missed_requirements) == 2


@pytest.mark.slow
def test_the_page_states_command_seed_and_versions(outcome: SimulationOutcome, tmp_path: Path) -> None:
    path = tmp_path / "docs" / "rates.md"
    assert report(outcome, path, COMMAND) == 0
    page = path.read_text(encoding="utf-8")
    assert COMMAND in page
    assert f"seed 0, numpy {np.__version__}" in page
    for title in {scenario.title for scenario in SCENARIOS}:
        assert page.count(f"| {title}") == 2
    assert "The false alarms:" not in page
    alarmed = replace(outcome, unpaired=replace(outcome.unpaired, alarmed=1, lines=("suite 0, shallow: text",)))
    assert "The false alarms:\n\n- suite 0, shallow: text\n" in error_rates_page(alarmed, COMMAND)
    assert max(len(line) for line in page.splitlines() if not line.startswith("|")) <= 120
    # Real runs are measured by another program.
    path.write_text(page.replace("No real run is recorded yet.", "0 alarms in 20 real runs"), encoding="utf-8")
    assert report(outcome, path, COMMAND) == 0
    assert "0 alarms in 20 real runs\n" in path.read_text(encoding="utf-8")


@pytest.mark.slow
def test_results_do_not_depend_on_the_number_of_processes() -> None:
    plan = SimulationPlan(seed=3, suites=0, repetitions=1, sizes=(32,))
    single, double = run_plan(plan, jobs=1), run_plan(plan, jobs=2)
    assert single.cells == double.cells
    assert len(single.cells) == 2 * len(SCENARIOS)


def test_the_published_plan_has_every_cell_and_enough_repetitions() -> None:
    plan = full_plan(seed=0)
    suites, trials = plan.all_suites(), plan.all_trials()
    assert [suite.paired for suite in suites] == [True] * 1000 + [False] * 100
    cells = {(trial.scenario, trial.paired, trial.n) for trial in trials}
    assert len(cells) == len(SCENARIOS) * 2 * len(SIZES)
    required = [trial for trial in trials if trial.scenario.title in REQUIRED_CHANGES and trial.paired]
    assert sum(trial.n == REQUIRED_N for trial in required) == 2 * 420
    assert len(set(trials)) == len(trials)


def test_every_draw_has_its_own_seed() -> None:
    draws = [(0, "trial", s, paired, n) for s in range(4) for paired in (True, False) for n in (0, 1, 32)]
    seeds = {seed_of(seed, *draw) for seed in (0, 1) for draw in draws}
    assert len(seeds) == 2 * len(draws)
    assert seed_of(5, "suite", True, 2) == seed_of(5, "suite", True, 2) != seed_of(5, "trial", True, 2)


def test_a_share_of_zero_has_the_exact_upper_bound() -> None:
    low, high = share_interval(0, 1000)
    assert (low, high) == (0.0, pytest.approx(1.0 - 0.025 ** (1 / 1000)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suites", "0"], "'0' is not an integer of at least 1"),
        (["--jobs", "two"], "'two' is not an integer of at least 1"),
        (["--seed", "-1"], "'-1' is not an integer of at least 0"),
        (["--repetitions", "1.5"], "'1.5' is not an integer of at least 1"),
    ],
)
def test_bad_arguments_are_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_an_unwritable_page_is_refused_before_the_simulation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "page.md"):
        assert main(["--write", str(path)]) == 2
        assert f"{path} cannot be written; name a file" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_needs_no_torch() -> None:
    code = "import sys, harness.lab.simulation.__main__; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
