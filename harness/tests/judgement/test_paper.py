"""The stored claims of the paper match the judged claims and the numbers of their rules."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.analysis import claims as rules
from harness.analysis import monotone, segments
from harness.analysis.claims import CLAIMS, Claim, ClaimVerdict
from harness.analysis.flow_claims import LOCAL_SHARE
from harness.analysis.phase_reading import PhaseReading, read_phases
from harness.checks import check_claim
from harness.data.datasets import DATASETS
from harness.judgement.paper import CLAIMS_FILE, PaperError, paper_claims
from harness.judgement.phases import CLAIM_NAMES
from harness.models.registry import MODELS
from harness.profile.profile import Profile
from harness.tests.support.case_runs import ROOT
from harness.tests.support.synthetic_curves import draw_curves, draw_recalls, phase_curve
from harness.tests.support.synthetic_profiles import join_lines, synthetic_profile

PAPER = json.loads(CLAIMS_FILE.read_text(encoding="utf-8"))


def reading(inter: Any) -> PhaseReading:
    curves = [draw_curves(inter, 64, seed, sd=0.05) for seed in range(3)]
    return read_phases(*curves, draw_recalls(64, 0))


@pytest.fixture(scope="module")
def profile() -> Profile:
    return synthetic_profile()


@pytest.fixture(scope="module")
def judged() -> dict[str, Claim]:
    phases = reading(phase_curve())
    return {name: judge(phases) for name, judge in CLAIMS.items()}


def test_every_stored_claim_is_judged_and_has_a_case() -> None:
    assert list(paper_claims()) == list(CLAIM_NAMES)
    cases = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "cases").glob("test_*.py"))
    assert set(re.findall(r'replication\(claim="([\w-]+)"\)', cases)) == set(CLAIM_NAMES)


@pytest.mark.parametrize("name", CLAIMS)
@pytest.mark.parametrize("verdict", [ClaimVerdict.FAILS, ClaimVerdict.INCONCLUSIVE])
def test_the_message_on_a_claim_that_does_not_hold_quotes_the_paper(
    name: str, verdict: ClaimVerdict, profile: Profile, judged: dict[str, Claim]
) -> None:
    expected = AssertionError if verdict is ClaimVerdict.FAILS else pytest.xfail.Exception
    with pytest.raises(expected) as caught:
        check_claim(profile, replace(judged[name], parts=(replace(judged[name].decisive, verdict=verdict),)))
    first, stated, *_ = str(caught.value).splitlines()
    assert first == f"{name} of {profile.model} on {profile.dataset}: {verdict.upper()}"
    assert stated.startswith("  the paper (Wei, Shi and Inoue 2024, arXiv 2411.00646, figure")
    message, claim = join_lines(caught.value), PAPER["claims"][name]
    assert f": {claim['statement']} tested as: {claim['tested_as']} " in message


def test_the_declared_readings_equal_the_constants_of_the_rules() -> None:
    numbers = {
        "prominence_share": segments.PROMINENCE_SHARE,
        "least_prominence": segments.MIN_PROMINENCE,
        "reversal_share": monotone.REVERSAL_SHARE,
        "least_reversal": monotone.MIN_REVERSAL,
        "least_recall_gain": rules.MIN_RECALL_GAIN,
        "least_difference": 0.0,
        "local_share": LOCAL_SHARE,
    }
    phases = reading(phase_curve())
    shares = {
        "very_early": next(part.margin for part in rules.alignment(phases).parts if "quarter" in part.name)
        / phases.last,
        "very_late": next(part.margin for part in rules.output_preparation(phases).parts if "quarter" in part.name)
        / phases.last,
    }
    declared = {name: value for claim in paper_claims().values() for name, value in claim.readings.items()}
    assert declared == numbers | shares
    assert all(declared[name] == value for claim in paper_claims().values() for name, value in claim.readings.items())


def test_the_papers_models_datasets_and_number_of_samples_are_registered() -> None:
    setting = PAPER["setting"]
    for name in setting["models"]:
        assert any(model.startswith(name.lower()) and not entry.bundled for model, entry in MODELS.items()), name
    for name in setting["datasets"]:
        assert DATASETS[name.lower().replace(" ", "-")].samples == setting["samples"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "No such file"),
        ("{", "Expecting property name"),
        ("[]", "list indices"),
        (json.dumps(PAPER | {"claims": {"alignment": {}}}), "'figures' is missing"),
        (json.dumps(PAPER | {"claims": []}), "no attribute 'items'"),
        (json.dumps(PAPER | {"paper": {**PAPER["paper"], "arxiv": 2411.00646}}), "is not a text"),
        (json.dumps(PAPER | {"paper": {**PAPER["paper"], "authors": []}}), "not enough values"),
    ],
)
def test_a_file_that_is_missing_or_damaged_is_named(tmp_path: Path, text: str | None, reason: str) -> None:
    path = tmp_path / "paper.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(PaperError, match=r"cannot be read from .*restore it from version control") as caught:
        paper_claims(path)
    assert str(path) in str(caught.value)
    assert reason in str(caught.value)
