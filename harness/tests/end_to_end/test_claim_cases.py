"""Claims of the paper in complete runs: tested with a baseline or known differences, else reported as findings."""

from __future__ import annotations

import pytest

from harness.tests.support.case_runs import Cases

CLAIMS = ("-m", "replication", "-rxfE")


def failed_claims(result: pytest.RunResult) -> int:
    return result.parseoutcomes().get("failed", 0)


def test_claims_of_a_new_pair_are_findings_that_only_an_option_fails(cases: Cases) -> None:
    reported = cases.run(*CLAIMS)
    assert reported.ret == pytest.ExitCode.OK, reported.stdout.str()
    reported.stdout.fnmatch_lines(["XFAIL *test_four_phases*finding:", "    at least * alternating monotone segments*"])
    assert not cases.baselines.exists()
    strict = cases.run(*CLAIMS, "--phase-strict-claims")
    assert strict.ret == pytest.ExitCode.TESTS_FAILED
    assert failed_claims(strict) > 0


def test_a_baseline_or_an_empty_table_makes_the_claims_fail(recorded: Cases) -> None:
    assert failed_claims(recorded.run(*CLAIMS)) > 0
    for path in (recorded.baselines / "tiny-llava").iterdir():
        path.unlink()
    assert failed_claims(recorded.run(*CLAIMS)) == 0
    (recorded.baselines / "known_differences.toml").write_text("[tiny-llava-tiny]\n")
    assert failed_claims(recorded.run(*CLAIMS)) > 0
