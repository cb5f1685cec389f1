"""Runs of the cases that record a summary as baseline, or are compared with one."""

from __future__ import annotations

import json

import pytest
import torch

from harness.baselines.store import read_baseline
from harness.tests.support.case_runs import ACCEPT, REGRESSION, Cases, FaultPlugin
from harness.tests.support.faults import change_features
from harness.tests.support.summaries import find_names, read_shapes

SUMMARY = ("--phase-update-new", "--phase-summary", *REGRESSION)


@pytest.mark.slow
def test_a_recorded_summary_is_equivalent_on_the_same_model(cases: Cases) -> None:
    new = cases.run(*SUMMARY)
    new.stdout.fnmatch_lines(["baselines: 0 matched, 0 changed, 1 new, 0 unused", "*wrote *tiny.json (new)"])
    written = cases.files()
    path = cases.baselines / "tiny-llava" / "tiny.json"
    assert {len(shape) for shape in read_shapes(path).values()} == {0, 1, 2}
    assert not any(64 in shape for shape in read_shapes(path).values())
    assert not find_names(path, [f"tiny-{index}" for index in range(64)])
    plain = cases.run(*REGRESSION, "-rsx", "--phase-json", "run.json")
    outcomes = plain.parseoutcomes()
    assert outcomes["skipped"] == 5
    assert outcomes["passed"] + outcomes["xfailed"] == 7
    plain.stdout.fnmatch_lines(
        [
            "SKIP*not compared sample by sample:",
            "    the baseline is a summary of its samples: means are compared,*",
        ]
    )
    verdicts = json.loads((cases.baselines.parent / "run.json").read_text())["verdicts"]
    assert {line["verdict"] for line in verdicts} <= {"equivalent", "inconclusive"}
    updated = cases.run(*REGRESSION, "--phase-update")
    updated.stdout.fnmatch_lines(["baselines: 1 matched, 0 changed, 0 new, 0 unused"])
    assert cases.files() == written


@pytest.mark.slow
def test_a_baseline_converted_to_a_summary_detects_a_damaged_model(recorded: Cases) -> None:
    path = recorded.baselines / "tiny-llava" / "tiny.json"
    converted = recorded.run(*REGRESSION, "--phase-update", "--phase-summary")
    converted.stdout.fnmatch_lines(["baselines: 0 matched, 1 changed, 0 new, 0 unused"])
    assert read_baseline(path).summarised_samples == 64
    before, zeroed = recorded.files(), FaultPlugin(change_features(torch.zeros_like))
    damaged = recorded.run(*REGRESSION, "-v", plugins=(zeroed,))
    assert damaged.ret == pytest.ExitCode.TESTS_FAILED
    damaged.stdout.fnmatch_lines(
        [
            "E*n = 64 unpaired  -> DIFFERS",
            "E*baseline *tiny.json",
            "E*(summary of 64 samples, recorded with*",
        ]
    )
    assert recorded.files() == before
    accepted = recorded.run(*REGRESSION, *ACCEPT, plugins=(zeroed,))
    accepted.stdout.fnmatch_lines(["baselines: 0 matched, 1 changed, 0 new, 0 unused"])
    assert recorded.files() != before
    assert read_baseline(path).summarised_samples == 64
