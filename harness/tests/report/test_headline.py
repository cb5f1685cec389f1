"""The answer at the top of the page: nothing changed, findings, undecided verdicts, and two models."""

from __future__ import annotations

import dataclasses
import html
import json
import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from harness.baselines.history import HistoryEntry
from harness.baselines.reference import reference_from_profile
from harness.report.against import compare_models
from harness.report.headline import Headline, PairAnswer, headline, pair_answer
from harness.report.meanings import certainty_sentence
from harness.report.outcomes import PairOutcome, pair_outcomes
from harness.report.record import record_schema, report_record
from harness.report.recorded_results import recorded_results
from harness.report.write import write_report
from harness.run.session_results import SessionResults
from harness.tests.support.judged import judge_profiles, make_differing_profile
from harness.tests.support.synthetic_profiles import replace_arrays, synthetic_profile

SINCE = "since its baseline of transformers 5.23.0, torch 2.15.0"


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> SessionResults:
    """A session on a pair that reproduces its baseline."""
    return judge_profiles(tmp_path_factory.mktemp("kept"), synthetic_profile())


def answers(session: SessionResults, **fields: object) -> list[PairAnswer]:
    """Return the answers of a session; `fields` replaces fields of the outcomes."""
    record = report_record(session)
    outcomes: list[PairOutcome] = [dataclasses.replace(outcome, **fields) for outcome in pair_outcomes(session)]  # type: ignore[arg-type]
    return [pair_answer(outcome, record["pairs"][str(outcome.pair)]) for outcome in outcomes]


def answered(session: SessionResults, undecided: str = "", **fields: object) -> Headline:
    return headline(answers(session, **fields), undecided)


def test_known_failures_are_expected_and_others_fail(session: SessionResults) -> None:
    expected = answered(session, known={"intra-modal": "measured"})
    assert expected == ("reproduces", "good", f"made-curves: nothing changed {SINCE}", expected.lines)
    assert expected.lines == ("Of the paper's 5 claims: 4 hold, 1 fails as expected.",)
    failed = answered(session)
    assert failed[:3] == ("fails", "bad", "FAILED: intra-modal fails for made-curves, which was not expected")
    assert failed.lines[0] == f"made-curves: nothing changed {SINCE}."
    held = answered(session, known={"intra-modal": "measured", "alignment": "measured"})
    assert held.title == "FAILED: alignment holds for made-curves, which was not expected"


def test_findings_fail_nothing(session: SessionResults) -> None:
    outcome = pair_outcomes(session)[0]
    without = answered(session, findings=(outcome.claims["intra-modal"],), regressions={}, baseline=None)
    assert without[:3] == ("", "", "made-curves: measured, not compared with a baseline")
    assert without.lines == ("Of the paper's 5 claims: 4 hold, 1 fails (a finding).",)


def test_the_reference_of_a_comparison_shows_its_claims(session: SessionResults) -> None:
    record = report_record(session)["pairs"]["made-curves"]
    (outcome,) = pair_outcomes(session)
    bare = dataclasses.replace(outcome, claims={}, regressions={})
    answer = pair_answer(bare, record, {"alignment": "holds", "intra-modal": "fails"})
    assert answer.claim("alignment") == ("holds", "holds", "")
    assert answer.claim("intra-modal") == ("fails", "fails", "")
    assert answer.claim("inter-modal").words == "not judged"
    assert answer.comparison().words == "the other model"


def test_undecided_verdicts_are_not_called_unchanged(session: SessionResults) -> None:
    outcome = pair_outcomes(session)[0]
    known = {"intra-modal": "measured"}
    undecided = dataclasses.replace(outcome.regressions["lens"], verdict="inconclusive")
    opened = answered(session, known=known, regressions={**outcome.regressions, "lens": undecided})
    assert opened.style == "open"
    assert opened.title == f"made-curves: no change is confirmed {SINCE}, but not everything is decided"
    reason = answered(session, "too few samples", known=known)
    assert reason.style == "open"
    assert "Undecided: too few samples." in reason.lines


def test_unconfirmed_phases_are_a_best_guess(tmp_path: Path) -> None:
    made = synthetic_profile()
    rising = replace_arrays(made, inter=made["inter"] * 0.02 + made["inter"][:, -1:])
    session = judge_profiles(tmp_path / "kept", rising)
    (answer,) = answers(session)
    count = sum(answer.outcome.reading.confirmed)
    assert count < 4
    assert answer.phases() == f"{count} of 4 phases confirmed; the cut is a best guess"
    assert certainty_sentence(answer.outcome).startswith(f"{count} of 4 phases confirmed")


@pytest.mark.slow
@pytest.mark.usefixtures("svg_only")
def test_two_models_are_compared_against_a_name_and_no_baseline(tmp_path: Path) -> None:
    session = judge_profiles(tmp_path / "kept", make_differing_profile())
    ((pair, baseline),) = session.baselines.items()
    other = dataclasses.replace(baseline.profile, model="other")
    history = (HistoryEntry("2026-11-30", {"torch": "2.15.0"}, "recall +0.1 at 3", "a <b>new</b> processor"),)
    session.baselines[pair] = dataclasses.replace(reference_from_profile(other), history=history)
    comparison = compare_models(session.profiles[pair], other)
    (answer,) = answers(session)
    assert (answer.other, answer.since, answer.against) == ("other", "against other", True)
    text = write_report(session, (comparison,), tmp_path / "report").read_text(encoding="utf-8")
    content = json.loads((tmp_path / "report" / "phase.json").read_text(encoding="utf-8"))
    assert list(Draft202012Validator(record_schema()).iter_errors(content)) == []
    assert recorded_results(content).baselines[pair].history == history
    accepted = text.split("<h3>Accepted changes of the baseline</h3>")[1].split("</table>")[0]
    assert re.findall(r"<td[^>]*>(.*?)</td>", accepted) == [
        "2026-11-30",
        "torch 2.15.0",
        "recall +0.1 at 3",
        "a &lt;b&gt;new&lt;/b&gt; processor",
    ]
    page = html.unescape(text)
    assert "DIFFERENT: made-curves against other, first changed layer: 6" in page
    assert "<h3>made against other on curves: 64 samples, paired</h3>" in page
    assert "Every sample is the same as in other, within the tolerance." in page
    assert "since the baseline" not in page
