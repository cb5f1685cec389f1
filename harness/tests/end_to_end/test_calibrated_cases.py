"""Complete runs of `pytest cases/ --phase-calibrate`, and of controls, on a tiny pair."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import harness.measurement.conditions
from harness.analysis.power import DRAWS, RECALL_DRAWS
from harness.data.datasets import DATASETS
from harness.measurement.conditions import CalibrationRun
from harness.run import power_gate
from harness.tests.support.case_runs import REGRESSION, Cases, find_arrays

INTER = ("-k", "test_inter_similarity")


@pytest.mark.slow
def test_calibration_of_an_inconclusive_baseline_is_refused_and_changes_nothing(recorded: Cases) -> None:
    before = recorded.files()
    result = recorded.run(*REGRESSION, *INTER, "--phase-calibrate")
    result.assert_outcomes(errors=1, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "phase: calibration of tiny-llava-tiny, bfloat16: inter changes by up to * in the mean and * in a sample",
            "phase: calibration of tiny-llava-tiny, eager: *",
            "no baseline of tiny-llava-tiny was written: * with 64 samples has too little power: *simulated runs*",
        ]
    )
    assert recorded.files() == before


@pytest.fixture
def without_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibration without the bfloat16 run, in which the decoded words of a random model change too much."""
    runs = (CalibrationRun("eager", attention="eager"), CalibrationRun("batch size 1", batch_size=1))
    monkeypatch.setattr(harness.measurement.conditions, "calibration_runs", lambda profile, batch_size: runs)


@pytest.fixture
def few_simulated_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of the simulated runs, whose shares of 0 and 1 these tests need, not their precision."""
    monkeypatch.setattr(power_gate, "curve_power", partial(power_gate.curve_power, draws=DRAWS // 4))
    monkeypatch.setattr(power_gate, "recall_power", partial(power_gate.recall_power, draws=RECALL_DRAWS // 4))


@pytest.mark.slow
@pytest.mark.usefixtures("without_bfloat16", "few_simulated_runs")
def test_a_calibration_is_stored_with_margins_and_power(cases: Cases) -> None:
    samples = ("--phase-samples", "160")
    first = cases.run(*REGRESSION, *INTER, *samples, "--phase-update-new")
    assert first.ret == pytest.ExitCode.OK, first.stdout.str()
    path = cases.baselines / "tiny-llava" / "tiny.json"
    plain = json.loads(path.read_text())
    assert (plain["calibration"], plain["power"]) == ({}, {})
    result = cases.run(*REGRESSION, *INTER, *samples, "--phase-calibrate")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["baselines: 0 matched, 0 changed, 0 new, 0 unused, 1 calibrated"])
    stored = json.loads(path.read_text())
    assert set(stored["calibration"]) == {"eager", "batch size 1"}
    assert 0.0 < stored["calibration"]["eager"]["noise"]["inter"]["sample"] < 1e-4
    assert stored["power"]["inter-modal similarity"]["equivalent with nothing changed"] >= 0.95
    assert stored["means"] == plain["means"]
    assert set(stored["margins"]["turning_point_1"]) == {"value", "reason"}
    again = cases.run(*REGRESSION, *INTER, *samples)
    again.assert_outcomes(passed=2)


@pytest.mark.slow
@pytest.mark.usefixtures("without_bfloat16", "few_simulated_runs")
def test_samples_with_inconclusive_recall_suffice_for_regression_only(
    recorded: Cases, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = recorded.run(*REGRESSION, *INTER, "--phase-calibrate")
    refused.stdout.fnmatch_lines(
        ["no baseline of tiny-llava-tiny was written: a baseline of LogitLens recall with 64*"]
    )
    monkeypatch.setitem(DATASETS, "tiny", replace(DATASETS["tiny"], regression_only=True))
    recorded.run(*REGRESSION, *INTER, "--phase-calibrate").assert_outcomes(passed=2)
    stored = json.loads((recorded.baselines / "tiny-llava" / "tiny.json").read_text())
    assert set(stored["power"]) == {"inter-modal similarity"}


@pytest.mark.usefixtures("without_bfloat16")
def test_a_run_with_other_samples_does_not_calibrate_the_baseline(recorded: Cases) -> None:
    before = recorded.files()
    result = recorded.run(*REGRESSION, *INTER, "--phase-calibrate", "--phase-samples", "72")
    result.assert_outcomes(errors=1, skipped=1)
    result.stdout.fnmatch_lines(["*tiny.json differs from this run*--phase-calibrate together*"])
    assert recorded.files() == before


def test_controls_are_stored_and_reported(recorded: Cases) -> None:
    path = recorded.baselines / "tiny-llava" / "tiny.json"
    stored = json.loads(path.read_text())
    assert set(stored["controls"]) == {"noise", "blank"}
    assert len(stored["controls"]["noise"]["inter"]) == 7
    assert set(stored["phases"]["controls"]["blank"]["segment_counts"]) == set(stored["phases"]["segment_counts"])
    with np.load(find_arrays(path)) as arrays:
        assert arrays["noise.inter"].shape == (64, 7)
        np.testing.assert_allclose(arrays["noise.inter"].mean(0), stored["controls"]["noise"]["inter"], rtol=1e-5)
    result = recorded.run("-m", "replication", "-v", "--phase-json", "record.json")
    result.stdout.fnmatch_lines(
        [
            "tiny-llava-tiny, difference to its controls:",
            "claim * real - noise * real - blank * real - chance",
            "four-phases *",
            "output-preparation *inter IV *",
        ]
    )
    content = json.loads((recorded.baselines.parent / "record.json").read_text())["pairs"]["tiny-llava-tiny"]
    assert content["controls"] == stored["controls"]
    part = content["phases"]["claims"]["inter-modal"]["parts"][0]
    assert {difference["control"] for difference in part["control_differences"]} == {"noise", "blank"}


@pytest.mark.slow
def test_a_run_without_controls_does_not_change_the_baseline(recorded: Cases) -> None:
    before = recorded.files()
    result = recorded.run(*REGRESSION, *INTER, "--phase-controls", "none", "--phase-update")
    result.stdout.fnmatch_lines(["*controls none*", "baselines: 1 matched, 0 changed, 0 new, 0 unused"])
    assert recorded.files() == before
    claims = recorded.run("-m", "replication", "--phase-controls", "none", "-v")
    claims.stdout.no_fnmatch_line("*real - noise*")


def test_an_unknown_control_is_a_usage_error(cases: Cases) -> None:
    result = cases.run("--phase-controls", "static")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*'static' is no control; use noise, blank or none*"])
