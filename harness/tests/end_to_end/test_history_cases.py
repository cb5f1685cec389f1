"""Accepting a changed baseline takes a reason, which its history keeps over later updates."""

from __future__ import annotations

import re

import pytest

from harness.baselines.history import HistoryEntry
from harness.baselines.store import read_baseline
from harness.tests.support.case_runs import REGRESSION, Cases, FaultPlugin
from harness.tests.support.faults import swap_layers

UPDATE = (*REGRESSION, "-k", "test_inter_similarity", "--phase-controls", "none", "--phase-update")


def history(cases: Cases) -> tuple[HistoryEntry, ...]:
    return read_baseline(cases.baselines / "tiny-llava" / "tiny.json").history


@pytest.mark.slow
def test_the_reason_of_each_accepted_change_is_kept(recorded: Cases) -> None:
    before = recorded.files()
    assert history(recorded) == ()
    swapped = (FaultPlugin(swap_layers(3)),)
    refused = recorded.run(*UPDATE, plugins=swapped)
    assert refused.ret == pytest.ExitCode.TESTS_FAILED
    message = " ".join(refused.stdout.str().split())
    assert re.search(r"tiny.json differs from this run \(.* at .*, margin .*\). Accepting a change takes", message)
    assert "--phase-update --phase-reason TEXT" in message or "update=True, reason=TEXT" in message
    assert recorded.files() == before
    accepted = recorded.run(*UPDATE, "--phase-reason", "layers  3 and 4\nbelong so", plugins=swapped)
    assert accepted.ret == pytest.ExitCode.OK, accepted.stdout.str()
    (entry,) = history(recorded)
    assert entry.reason == "layers 3 and 4 belong so"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", entry.date)
    assert entry.versions.keys() == {"harness", "torch", "transformers"}
    assert re.fullmatch(r".+ [+-][\d.e-]+ at [a-z ]+ \d+, margin [\d.e-]+", entry.largest_change), entry.largest_change
    stored = recorded.files()
    again = recorded.run(*UPDATE, "--phase-reason", "nothing changed", plugins=swapped)
    assert (again.ret, recorded.files()) == (pytest.ExitCode.OK, stored)
    back = recorded.run(*UPDATE, "--phase-reason", "back to the first order")
    assert back.ret == pytest.ExitCode.OK
    assert [entry.reason for entry in history(recorded)] == ["layers 3 and 4 belong so", "back to the first order"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--phase-reason", "why"), "*--phase-reason states why*use it with --phase-update*"),
        (("--phase-reason", "why", "--phase-update-new"), "*use it with --phase-update*"),
        (("--phase-update", "--phase-reason", " "), "*the reason is empty*"),
        (("--phase-accept-claims", "--phase-strict-claims"), "*exclude each other*"),
    ],
)
def test_options_that_contradict_each_other_are_a_usage_error(
    cases: Cases, arguments: tuple[str, ...], message: str
) -> None:
    result = cases.run(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    pytest.LineMatcher([*result.stderr.lines, *result.stdout.lines]).fnmatch_lines([message])
