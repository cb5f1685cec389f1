"""Differences are listed before inconclusive verdicts, and tolerated changes are noted."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from harness.analysis.mean_difference import Verdict
from harness.judgement.regression import Finding
from harness.judgement.results import Evidence
from harness.judgement.side_by_side import Trace
from harness.profile.profile import Profile
from harness.report.against import trace_line
from harness.report.closing import run_outcome
from harness.report.markdown import markdown_summary
from harness.report.outcomes import pair_outcomes
from harness.report.summary import summary_lines
from harness.report.write import write_report
from harness.run.session_results import SessionResults
from harness.tests.support.judged import judge_profiles, make_differing_profile
from harness.tests.support.synthetic_profiles import replace_arrays, synthetic_profile
from harness.tests.support.two_sides import judge_recall

NOTE = "LogitLens recall (top 5): 1 of 64 samples changed; up to 1 % may change"


@pytest.fixture(scope="module")
def inconclusive_session(tmp_path_factory: pytest.TempPathFactory) -> SessionResults:
    """A session in which one pair differs and more than a quarter of the verdicts is inconclusive."""
    session = judge_profiles(tmp_path_factory.mktemp("inconclusive"), make_differing_profile())
    session.verdicts[:] = [
        dataclasses.replace(line, verdict="inconclusive") if line.kind == "replication" else line
        for line in session.verdicts
    ]
    return session


@pytest.mark.slow
@pytest.mark.usefixtures("svg_only")
def test_differences_are_listed_before_inconclusive_verdicts(
    inconclusive_session: SessionResults, tmp_path: Path
) -> None:
    problem = inconclusive_session.problem()
    assert problem.startswith("made-curves: inter differs")
    assert problem.endswith(f". Besides, {inconclusive_session.inconclusive_reason()}")
    assert "inconclusive, more than a quarter: the suite is inconclusive" in problem
    outcome = run_outcome(inconclusive_session, pair_outcomes(inconclusive_session), failed=True)
    ending = " ".join(line.text.strip() for line in outcome.lines(80))
    assert ending.startswith("PHASES CHANGED: made-curves: first changed layer: 6 (weights changed). Besides, ")
    assert "inconclusive, more than a quarter: the suite is inconclusive" in ending
    assert f"**{problem.replace('_', chr(92) + '_')}**" in markdown_summary(inconclusive_session)
    page = write_report(inconclusive_session, (), tmp_path / "report").read_text(encoding="utf-8")
    banner = page.split('class="banner')[1].split("</div>")[0]
    assert banner.index("CHANGED: made-curves") < banner.index("Undecided: ")


def test_without_differences_only_the_inconclusive_verdicts_are_the_problem(
    inconclusive_session: SessionResults,
) -> None:
    without_differences = dataclasses.replace(inconclusive_session)
    without_differences.verdicts = [line for line in inconclusive_session.verdicts if not line.changed]
    assert without_differences.problem() == without_differences.inconclusive_reason() != ""
    regression_only = dataclasses.replace(inconclusive_session)
    regression_only.verdicts = [line for line in inconclusive_session.verdicts if line.kind == "regression"]
    assert (regression_only.problem(), regression_only.inconclusive_reason()) == ("", "")


def add_hit(profile: Profile) -> Profile:
    """Return the profile with an additional hit in one sample at one point."""
    hits = profile.arrays["hits"].copy()
    hits[7, 5, 1] += 1
    return replace_arrays(profile, hits=hits)


def tolerate(part: Evidence) -> Evidence:
    """Return the part as if a larger share of changed samples were allowed."""
    assert isinstance(part.source, Finding)
    agreement = dataclasses.replace(part.source.agreement, verdict=Verdict.REPRODUCES, reproduced=True)
    return dataclasses.replace(part, verdict="reproduces", source=dataclasses.replace(part.source, agreement=agreement))


@pytest.mark.slow
@pytest.mark.usefixtures("svg_only")
def test_recall_that_reproduces_with_a_changed_sample_has_a_note(tmp_path: Path) -> None:
    session = judge_profiles(tmp_path, add_hit(synthetic_profile()))
    lens = next(line for line in session.verdicts if line.question == "lens")
    # 1 of 64 is more than one in a hundred.
    assert lens.changed
    parts = tuple(tolerate(part) if part.title == "LogitLens recall (top 5)" else part for part in lens.parts)
    session.verdicts[session.verdicts.index(lens)] = dataclasses.replace(
        lens, verdict="reproduces", changed=False, parts=parts
    )
    for width in (80, 400):
        lines = summary_lines(session, pair_outcomes(session), width, verbosity=1)
        text = " ".join(" ".join(line.text for line in lines).split())
        assert NOTE in text
    assert f"- `made-curves`, {NOTE}" in markdown_summary(session)
    assert f"<p>{NOTE}.</p>" in write_report(session, (), tmp_path / "report").read_text(encoding="utf-8")


def test_one_of_128_samples_may_change_its_recall() -> None:
    before = np.zeros((128, 5))
    after = before.copy()
    after[9, 3] = 0.2
    agreement = judge_recall(after, before, paired=True, alpha_diff=1e-4)
    assert (agreement.verdict, agreement.beyond_tolerance, agreement.compared, agreement.largest) == (
        "reproduces",
        1,
        128,
        0.2,
    )


def test_the_trace_of_recall_states_the_share_of_equal_samples() -> None:
    assert trace_line(Trace("LogitLens recall", 30, 26, 30, 1e-9)) == (
        "LogitLens recall: the same in at least 99 % of the samples, at every residual point; bit for bit up to "
        "residual point 26, the input of layer 27"
    )


def test_unchanged_recall_has_no_note(tmp_path: Path) -> None:
    session = judge_profiles(tmp_path, synthetic_profile())
    assert "samples changed" not in markdown_summary(session)
