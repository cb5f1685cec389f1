"""Claims of the paper in complete runs: tested with a baseline or known differences, else reported as findings."""

from __future__ import annotations

import pytest
import torch

from harness.judgement.known_differences import known_differences
from harness.tests.support.case_runs import ACCEPT, Cases, FaultPlugin
from harness.tests.support.faults import change_features

CLAIMS = ("-m", "replication", "-rxfE", "--phase-controls", "none")


def failed_claims(result: pytest.RunResult) -> int:
    return result.parseoutcomes().get("failed", 0)


@pytest.mark.slow
def test_claims_of_a_new_pair_are_findings_that_only_an_option_fails(cases: Cases) -> None:
    reported = cases.run(*CLAIMS)
    assert reported.ret == pytest.ExitCode.OK, reported.stdout.str()
    reported.stdout.fnmatch_lines(["XFAIL *test_four_phases*finding:", "    at least * alternating monotone segments*"])
    assert not cases.baselines.exists()
    strict = cases.run(*CLAIMS, "--phase-strict-claims")
    assert strict.ret == pytest.ExitCode.TESTS_FAILED
    assert failed_claims(strict) > 0


@pytest.mark.slow
def test_a_baseline_or_an_empty_table_makes_the_claims_fail(recorded: Cases) -> None:
    assert failed_claims(recorded.run(*CLAIMS)) > 0
    for path in (recorded.baselines / "tiny-llava").iterdir():
        path.unlink()
    assert failed_claims(recorded.run(*CLAIMS)) == 0
    (recorded.baselines / "known_differences.toml").write_text("[tiny-llava-tiny]\n")
    assert failed_claims(recorded.run(*CLAIMS)) > 0


@pytest.mark.slow
def test_accepted_claims_are_expected_by_the_next_run(cases: Cases) -> None:
    path = cases.baselines / "known_differences.toml"
    path.parent.mkdir()
    path.write_text('# mine\n[other-pair]\nalignment = "kept"  # too\n\n[tiny-llava-tiny]\ninter-modal = "by hand"\n')
    assert failed_claims(cases.run(*CLAIMS)) > 0
    accepted = cases.run(*CLAIMS, "--phase-accept-claims")
    assert accepted.ret == pytest.ExitCode.OK, accepted.stdout.str()
    accepted.stdout.fnmatch_lines(["XFAIL *test_four_phases*accepted:"])
    assert "known_differences.toml (claims accepted)" in accepted.stdout.str()
    known = known_differences(cases.baselines)
    assert path.read_text().startswith('# mine\n[other-pair]\nalignment = "kept"  # too\n')
    assert known["tiny-llava-tiny"]["four-phases"].startswith("at least ")
    assert known["tiny-llava-tiny"]["four-phases"].endswith("(64 samples)")
    assert known["tiny-llava-tiny"]["inter-modal"] == "by hand"
    expected = cases.run(*CLAIMS)
    assert expected.ret == pytest.ExitCode.OK, expected.stdout.str()
    expected.stdout.fnmatch_lines(["XFAIL *test_four_phases*known:"])
    before = path.read_bytes()
    assert cases.run(*CLAIMS, "--phase-accept-claims").ret == pytest.ExitCode.OK
    assert path.read_bytes() == before


@pytest.mark.slow
def test_an_update_of_a_baseline_writes_its_known_differences(recorded: Cases) -> None:
    path = recorded.baselines / "known_differences.toml"
    path.write_text('[tiny-llava-tiny]\nfour-phases = "old"\n')
    swapped = (FaultPlugin(change_features(torch.zeros_like)),)
    updated = recorded.run("-m", "replication or regression", *ACCEPT, plugins=swapped)
    assert updated.ret == pytest.ExitCode.OK, updated.stdout.str()
    assert known_differences(recorded.baselines)["tiny-llava-tiny"]["four-phases"] != "old"
    again = recorded.run("-m", "replication or regression", plugins=swapped)
    assert again.ret == pytest.ExitCode.OK, again.stdout.str()


def test_a_new_baseline_writes_its_known_differences(cases: Cases) -> None:
    first = cases.run("-m", "replication or regression", "--phase-update-new")
    assert first.ret == pytest.ExitCode.OK, first.stdout.str()
    assert "four-phases" in known_differences(cases.baselines)["tiny-llava-tiny"]
    assert cases.run("-m", "replication or regression").ret == pytest.ExitCode.OK
