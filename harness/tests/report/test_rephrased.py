"""The results under a second instruction in every view, in the record, and in the results of a worker."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from harness.analysis.boundary_agreement import BoundaryShift
from harness.analysis.turning_points import BoundaryInterval
from harness.judgement.rephrasing import RephrasedClaim, Rephrasing, judge_rephrasing
from harness.judgement.results import Evidence
from harness.profile.pair import Pair
from harness.report.markdown import markdown_summary
from harness.report.outcomes import pair_outcomes
from harness.report.record import record_schema, run_record
from harness.report.recorded_results import recorded_results, report_from_record
from harness.report.rephrased import recorded_rephrasing, rephrasing_record, rephrasing_text
from harness.report.summary import summary_lines
from harness.report.write import write_report
from harness.run.session_results import SessionResults
from harness.storage.json_text import dump
from harness.tests.support.drawings import without_raster_and_pdf
from harness.tests.support.judged import judge_profiles
from harness.tests.support.rephrased import SECOND, rephrased_profile
from harness.tests.support.synthetic_profiles import synthetic_profile

PAIR, OTHER = Pair("made", "curves"), Pair("made", "others")
REASON = "mine declares no second instruction: set `rephrasing` of its Dataset"
TEXT = (
    f"rephrased as '{SECOND}': boundaries 2/5/10 -> 2/5/10, within the margin of 1 layer; claims: 4 of 5 unchanged; "
    "alignment holds -> inconclusive"
)


@pytest.fixture(scope="module")
def rephrasing() -> Rephrasing:
    """The results of the synthetic profile, in which one claim becomes inconclusive."""
    profile = synthetic_profile()
    judged = judge_rephrasing(profile, rephrased_profile(profile))
    claim = RephrasedClaim("holds", "inconclusive", "I ends at layer 2 (2 to 4), the first quarter at 3 (64 samples)")
    return dataclasses.replace(judged, claims={**judged.claims, "alignment": claim})


@pytest.fixture(scope="module")
def results(rephrasing: Rephrasing, tmp_path_factory: pytest.TempPathFactory) -> SessionResults:
    """The results of a run with one rephrased pair and one without a second instruction."""
    profiles = [dataclasses.replace(synthetic_profile(), dataset=pair.dataset) for pair in (PAIR, OTHER)]
    findings = judge_profiles(tmp_path_factory.mktemp("rephrased"), *profiles)
    findings.rephrasings[PAIR], findings.not_rephrased[OTHER] = rephrasing, REASON
    return findings


def text_of(results: SessionResults, rephrasing: Rephrasing) -> str:
    """Return the sentence on a rephrasing."""
    outcome = pair_outcomes(results)[0]
    return rephrasing_text(dataclasses.replace(outcome, rephrasing=rephrasing))


def with_shifts(rephrasing: Rephrasing, question_verdict: str, **changes: Any) -> Rephrasing:
    """Return the results with a verdict on the boundaries, and the second turning point changed."""

    def changed(part: Evidence) -> Evidence:
        if part.title != "turning point 2" or not isinstance(part.source, BoundaryShift):
            return part
        return dataclasses.replace(part, source=dataclasses.replace(part.source, **changes))

    parts = tuple(map(changed, rephrasing.boundaries.parts))
    return dataclasses.replace(
        rephrasing, boundaries=dataclasses.replace(rephrasing.boundaries, verdict=question_verdict, parts=parts)
    )


def test_the_sentence_shows_boundaries_and_changed_claims(results: SessionResults, rephrasing: Rephrasing) -> None:
    assert text_of(results, rephrasing) == TEXT
    wide = with_shifts(rephrasing, "equivalent", margin=3.0)
    points = (wide.turning_points[0], BoundaryInterval(7.0, 5.0, 8.0), wide.turning_points[2])
    wide = dataclasses.replace(wide, turning_points=points)
    assert "boundaries 2/5/10 -> 2/7 [5-8]/10, within the margins of 1/3/1 layers; claims" in text_of(results, wide)
    moved = with_shifts(rephrasing, "differs", verdict="differs", measured=9.0)
    assert "moved beyond the margin (turning point 2 from layer 5 to 9, margin 1); claims" in text_of(results, moved)
    unknown = with_shifts(rephrasing, "inconclusive", verdict="inconclusive", measured=math.nan)
    assert "inconclusive (turning point 2 from layer 5 to nan, margin 1); claims" in text_of(results, unknown)
    assert "2/5/10, the same in every sample; claims" in text_of(results, with_shifts(rephrasing, "reproduces"))


def test_a_run_without_the_option_shows_nothing(results: SessionResults) -> None:
    plain = copy.copy(results)
    plain.rephrasings, plain.not_rephrased = {}, {}
    assert "ephrased" not in json.dumps(run_record(plain))
    assert "ephrased" not in markdown_summary(plain)
    assert list(map(rephrasing_text, pair_outcomes(plain))) == ["", ""]


@pytest.mark.parametrize("verbosity", [0, 1])
def test_the_summary_shows_it_for_each_pair(results: SessionResults, verbosity: int) -> None:
    lines = [line.text for line in summary_lines(results, pair_outcomes(results), 80, verbosity=verbosity)]
    text = " ".join(" ".join(lines).split())
    assert TEXT in text
    assert f"not rephrased: {REASON}" in text
    assert max(map(len, lines)) <= 80


def test_the_markdown_escapes_it(results: SessionResults) -> None:
    text = markdown_summary(results)
    assert f"- `made-curves` {TEXT.replace('->', '-&gt;')}" in text
    assert r"- `made-others` not rephrased: mine declares no second instruction: set \`rephrasing\` of its" in text


def test_the_record_conforms_to_its_schema_and_is_read_back(results: SessionResults, rephrasing: Rephrasing) -> None:
    content = json.loads(dump(run_record(results)))
    assert list(Draft202012Validator(record_schema()).iter_errors(content)) == []
    entry = content["pairs"]["made-curves"]["rephrased"]
    assert (entry["instruction"], entry["boundaries"]["verdict"]) == (SECOND, "equivalent")
    assert entry["turning_points"] == [[2.0, 2.0, 2.0], [5.0, 5.0, 5.0], [10.0, 10.0, 10.0]]
    shift = entry["boundaries"]["numbers"]["turning point 2"]
    assert {"measured": 5.0, "baseline": 5.0, "margin": 1.0, "verdict": "equivalent"}.items() <= shift.items()
    assert entry["claims"]["alignment"] == rephrasing.claims["alignment"]._asdict()
    assert content["pairs"]["made-others"]["rephrased"] == {"left_out": REASON}
    restored = recorded_rephrasing(PAIR, entry)
    assert json.loads(dump(rephrasing_record(restored))) == entry
    assert text_of(results, restored) == TEXT
    both = entry | {"left_out": REASON}
    content["pairs"]["made-curves"]["rephrased"] = both
    assert list(Draft202012Validator(record_schema()).iter_errors(content)) != []


def test_a_reason_has_no_directories_of_this_machine(results: SessionResults) -> None:
    failed = copy.copy(results)
    failed.not_rephrased = {OTHER: "the image /a/b/c.png is torn"}
    assert run_record(failed)["pairs"]["made-others"]["rephrased"] == {"left_out": "the image c.png is torn"}


@pytest.mark.slow
def test_the_page_shows_it_also_from_the_record(results: SessionResults, tmp_path: Path) -> None:
    with without_raster_and_pdf():
        pages = [write_report(results, (), tmp_path / "first")]
        pages.append(report_from_record(tmp_path / "first" / "phase.json", tmp_path / "again"))
    for page in pages:
        text = page.read_text(encoding="utf-8")
        shown = TEXT.replace("'", "&#39;").replace("->", "-&gt;")
        assert f"<p>R{shown[1:]}.</p>" in text
        assert f"<p>Not rephrased: {REASON}.</p>" in text
        section = text[text.index("With another instruction of the same meaning") :]
        assert "in the original prompt 5." in section
        assert 'data-label="rephrased"><span class="verdict inconclusive"' in section


def test_a_worker_sends_it_to_the_controller(results: SessionResults, rephrasing: Rephrasing) -> None:
    controller = SessionResults(results.options)
    controller.merge(pickle.loads(pickle.dumps(results)))  # noqa: S301 - pickled in the same line
    assert rephrasing_record(controller.rephrasings[PAIR]) == rephrasing_record(rephrasing)
    assert controller.not_rephrased == {OTHER: REASON}
    assert recorded_results(json.loads(dump(run_record(results)))).not_rephrased == {OTHER: REASON}
