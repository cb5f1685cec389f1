"""The causal cases in complete runs: off by default, on by option or marker, and their baselines."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from harness.models.vlm import Vlm
from harness.tests.support.case_runs import ACCEPT, REGRESSION, Cases, FaultPlugin
from harness.tests.support.faults import change_features

FLOW = ("--phase-knockout", "-m", "causal")


def flows(result: pytest.RunResult) -> int:
    return result.stdout.str().count("test_image_flow")


def change_logits(vlm: Vlm, _: Any) -> None:
    """Divide the logits by another number at every call, so that no states give them."""
    calls = itertools.count(2)

    def divide(_: Any, __: Any, output: Any) -> Any:
        output.logits = output.logits / next(calls)
        return output

    vlm.model.register_forward_hook(divide)


def test_causal_cases_are_off_by_default_and_on_by_option_or_marker(cases: Cases) -> None:
    assert flows(cases.run("--co", "-q")) == 0
    assert flows(cases.run("--co", "-q", "-m", "not causal and not timing")) == 0
    assert flows(cases.run("--co", "-q", "-m", "causal")) == 5
    assert flows(cases.run("--co", "-q", "--phase-knockout")) == 5


def test_a_window_without_a_knockout_is_a_usage_error(cases: Cases) -> None:
    result = cases.run("--phase-knockout-window", "2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--phase-knockout-window sets the windows of a knockout: use it with*"])


def test_a_knockout_is_recorded_compared_and_shown(cases: Cases) -> None:
    recording = cases.run(*FLOW, "--phase-update-new")
    assert recording.parseoutcomes()["passed"] >= 2, recording.stdout.str()
    stored = json.loads((cases.baselines / "tiny-llava" / "tiny.json").read_text())
    assert {"knockout", "knockout_answer", "knockout_instruction"} <= stored["margins"].keys() & stored["means"].keys()
    again = cases.run(*FLOW, "-k", "reproduces or equivalent", "--phase-json", "flow.json")
    again.assert_outcomes(passed=2, deselected=24)
    again.stdout.fnmatch_lines(["tiny-llava-tiny, 64 samples: reproduces its baseline"])
    entry = json.loads((cases.baselines.parent / "flow.json").read_text())["pairs"]["tiny-llava-tiny"]
    assert [loss["layers"] for loss in entry["knockout"]["windows"]] == [[layer, layer] for layer in range(1, 7)]
    assert set(entry["knockout"]["controls"]) == {"noise", "blank", "other"}
    # Windows of other layers are another question.
    other = cases.run(*FLOW, *REGRESSION, "--phase-knockout-window", "3", "-k", "test_image_flow", "-rs")
    other.assert_outcomes(skipped=2, deselected=24)
    other.stdout.fnmatch_lines(["*windows of 3 layers here, of 1 in the baseline*"])


def test_causal_claims_of_a_baseline_without_a_knockout_are_findings(recorded: Cases) -> None:
    arguments = (*FLOW, "-k", "flows or local", "--phase-samples", "16")
    reported = recorded.run(*arguments)
    assert reported.ret == pytest.ExitCode.OK, reported.stdout.str()
    outcomes = reported.parseoutcomes()
    assert outcomes.get("passed", 0) + outcomes.get("xfailed", 0) == 3
    strict = recorded.run(*arguments, "--phase-strict-claims", "--phase-strict-evidence")
    assert strict.parseoutcomes().get("failed", 0) == outcomes.get("xfailed", 0)


def test_a_run_without_a_knockout_neither_compares_nor_loses_it(cases: Cases) -> None:
    cases.run(*FLOW, "--phase-update-new", "-k", "test_equivalent")
    before = cases.files()
    same = cases.run(*REGRESSION, "--phase-update")
    assert same.ret == pytest.ExitCode.OK, same.stdout.str()
    same.stdout.fnmatch_lines(["*1 matched, 0 changed*"])
    changed = cases.run(*REGRESSION, *ACCEPT, plugins=(FaultPlugin(change_features(lambda features: 2 * features)),))
    assert changed.ret == pytest.ExitCode.TESTS_FAILED
    assert "holds an attention knockout, which this run did not measure" in " ".join(changed.stdout.str().split())
    assert cases.files() == before


def test_a_model_whose_attention_cannot_be_blocked_is_an_error_of_the_causal_cases_only(cases: Cases) -> None:
    result = cases.run("--phase-knockout", "-m", "replication", plugins=(FaultPlugin(change_logits),))
    assert result.parseoutcomes()["errors"] == 3
    text = " ".join(result.stdout.str().split())
    assert "the attention knockout cannot be measured: LlavaForConditionalGeneration: its last states do not" in text
    assert result.parseoutcomes().get("xfailed", 0) + result.parseoutcomes().get("passed", 0) >= 4
