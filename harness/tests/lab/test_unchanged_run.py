"""Real runs with nothing changed: their plan, their alarms, their log and the block of the page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.data.datasets import find_dataset
from harness.data.sample import Source
from harness.lab.docs.pages import block_of
from harness.lab.simulation.populations import PAIRS, remeasure, to_baseline
from harness.lab.unchanged.__main__ import main
from harness.lab.unchanged.run_log import BLOCK, RunLog, read_log, to_json
from harness.lab.unchanged.unchanged_run import JudgedRun, judge_run, start_run
from harness.lab.unchanged.variation import MODELS, Variation, draw_variations, reordered
from harness.profile.profile import Profile

PROFILE = PAIRS[3].draw(0)
QUIET = JudgedRun(128, (), 0.05, 1, 19, 12.0)


def test_a_plan_alternates_the_models_and_varies_every_setting() -> None:
    plan = draw_variations(20, seed=0)
    assert plan[:5] == draw_variations(5, seed=0)
    assert plan != draw_variations(20, seed=1)
    assert [variation.model for variation in plan[:4]] == [*MODELS, *MODELS]
    assert {variation.threads for variation in plan} == {variation.processes for variation in plan} == {1, 2}
    assert {variation.attention for variation in plan} == {"sdpa", "eager"}
    sizes = {variation.batch_size for variation in plan}
    assert len(sizes) > 5
    assert sizes <= set(range(1, 17))


def test_another_order_has_the_same_samples() -> None:
    data = find_dataset("scenes")
    ids = [[sample.id for sample in reordered(data, order).draw(12, 0, Source())] for order in (1, 1, 2)]
    assert ids[0] == ids[1] != ids[2]
    drawn = [sample.id for sample in data.draw(12, 0, Source())]
    assert drawn not in ids
    assert {*ids[0]} == {*ids[2]} == {*drawn}


def test_the_same_readings_in_another_order_raise_no_alarm() -> None:
    run = judge_run(PROFILE.select(PROFILE.sample_ids[::-1]), to_baseline(PROFILE))
    assert (run.n, run.alarms, run.inconclusive) == (64, (), 0)
    assert run.largest <= 1e-3


def test_an_alarm_is_a_verdict_that_fails_a_test() -> None:
    baseline = to_baseline(PROFILE)
    changed = judge_run(with_change(2e-4), baseline)
    assert changed.alarms == ("inter",)
    assert changed.largest == pytest.approx(2e-4 / 5e-5, rel=0.01)
    assert judge_run(with_change(2e-5), baseline).alarms == ()
    assert set(judge_run(remeasure(PROFILE, 1), baseline).alarms) >= {"inter", "intra", "attention"}


def with_change(amount: float) -> Profile:
    """Return the profile with one value of one sample changed."""
    inter = PROFILE.arrays["inter"].copy()
    inter[3, 7] += np.float32(amount)
    return replace(PROFILE, arrays={**PROFILE.arrays, "inter": inter})


def a_log(*runs: JudgedRun) -> RunLog:
    log = RunLog("2026-01-02", "python -m harness.lab.unchanged", "a processor", {"torch": "2.0"})
    for variation, run in zip(draw_variations(len(runs), 0), runs, strict=True):
        log = log.with_run(variation, run)
    return log


def test_the_command_logs_every_run_and_reports_the_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    alarmed = replace(QUIET, alarms=("lens",))
    outcomes = iter([QUIET, QUIET, alarmed])
    monkeypatch.setattr("harness.lab.unchanged.__main__.start_run", lambda *_: next(outcomes))
    assert main(["--runs", "2", "--json", str(tmp_path / "log.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    expected = "0 alarms, largest change 0.05 x the tolerance, 1 of 19 verdicts inconclusive, 12 s"
    assert [line.split(": ", 1)[1] for line in lines[:2]] == [expected, expected]
    assert lines[2] == "0 alarms in 2 real runs with nothing changed (95 % interval 0.00% to 84.19%)"
    log = read_log(tmp_path / "log.json")
    assert [run for _, run in log.runs] == [QUIET, QUIET]
    assert log.command == "python -m harness.lab.unchanged --runs 2 --seed 0"
    assert main(["--runs", "1"]) == 1
    assert "1 alarms (lens)" in capsys.readouterr().out


def test_the_block_of_the_page_comes_from_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, page = tmp_path / "log.json", tmp_path / "page.md"
    log.write_text(to_json(a_log(QUIET, replace(QUIET, alarms=("lens", "inter")))))
    assert read_log(log) == a_log(QUIET, replace(QUIET, alarms=("lens", "inter")))
    page.write_text(f"before\n<!-- {BLOCK}: begin -->\nold\n<!-- {BLOCK}: end -->\nafter\n")
    assert main(["--read", str(log), "--page", str(page)]) == 1
    block = block_of(page.read_text(), BLOCK)
    assert block.startswith("1 alarm in 2 real runs with nothing changed (95 % interval 1.26% to 98.74%).")
    assert "lens, inter" in block
    assert "old" not in block
    capsys.readouterr()
    page.write_text("no block")
    assert main(["--read", str(log), "--page", str(page)]) == 2
    assert "there is no block real-runs" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["no json", '{"schema": 0}', '{"schema": 1, "runs": []}', "[]"])
def test_a_file_with_other_content_is_refused(tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log.json").write_text(content)
    assert main(["--read", str(tmp_path / "log.json")]) == 2
    assert "log.json" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_bundled_pair_measured_anew_raises_no_alarm(processes: int) -> None:
    run = start_run(Variation("scenes-llava", 1, 8, 5, processes, "eager"), 32)
    assert (run.n, run.alarms) == (32, ())
    assert 0.0 < run.largest < 1.0
