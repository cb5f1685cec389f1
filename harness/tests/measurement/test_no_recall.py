"""Without English captions everything except recall is measured and reported, with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from harness.analysis.claims import ClaimVerdict
from harness.baselines.store import read_baseline, write_baseline
from harness.data.datasets import DATASETS
from harness.data.sample import Dataset, Sample
from harness.data.words import content_words, seem_english
from harness.judgement.phases import judge_claims, phase_reading, phases_of
from harness.judgement.regression import compare
from harness.measurement.plan import NO_WORD, NOT_ENGLISH
from harness.models.vlm import Vlm
from harness.profile.measures import FAMILIES
from harness.profile.profile import Profile

# Imported here, because pytester's runs forget what they import first.
from harness.report import write as report_folder
from harness.report.figures import plot
from harness.report.record import record_schema
from harness.tests.support.case_runs import Cases
from harness.tests.support.tiny import have_same_numbers, tiny_profile, tiny_samples

__all__ = ["report_folder"]

pytestmark = pytest.mark.usefixtures("tiny_data")

RECALL = {"recall_1", "recall_5", "recall_chance_1", "recall_chance_5"}
GERMAN = (
    "Ein Mann sitzt auf einem Stuhl in der Küche",
    "Zwei Hunde laufen an einem Strand entlang",
    "Eine Frau hält einen roten Regenschirm in der Hand",
    "Ein Zug fährt an einem alten Bahnhof vorbei",
)


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Give all samples of the dataset `tiny` captions in another language."""

    def set_language(language: str) -> None:
        def draw(n: int, *_: object) -> list[Sample]:
            return [replace(sample, captions=(caption(row),)) for row, sample in enumerate(tiny_samples(n))]

        def caption(row: int) -> str:
            return f"テーブルの上に{row}枚" if language == "Japanese" else f"{GERMAN[row % 4]} {'x' * (row + 1)}"

        monkeypatch.setitem(DATASETS, "tiny", Dataset("tiny", "tiny", draw))

    return set_language


def test_content_words_are_those_of_captions_in_latin_letters() -> None:
    assert (
        content_words(["テーブルの上にピザがある", "TVの上に猫がいる", "человек на лошади", "\N{GRINNING FACE} 12"])
        == ()
    )
    assert content_words(["a café in 東京"]) == ("café",)


def test_a_language_is_recognised_from_many_sentences_only() -> None:
    german = [f"{GERMAN[row % 4]} {'x' * row}" for row in range(40)]
    assert not seem_english(german)
    assert seem_english(german[:19])
    assert seem_english([*german, "the cat sits on a mat and sleeps"])
    assert seem_english(f"a photo of a dog {'x' * row}" for row in range(40))
    assert seem_english(["dog", "cat"] * 40)
    assert seem_english([])


@pytest.mark.slow
@pytest.mark.parametrize(("language", "reason"), [("Japanese", NO_WORD), ("German", NOT_ENGLISH)])
def test_all_but_recall_is_measured(
    vlm: Vlm, foreign: Callable[[str], None], tmp_path: Path, language: str, reason: str
) -> None:
    english = tiny_profile(vlm, samples=24, controls=("blank",))
    foreign(language)
    lines: list[str] = []
    profile = tiny_profile(vlm, samples=24, controls=("blank",), cache=tmp_path, say=lines.append)
    assert lines == [f"tiny: recall is left out: {reason}"]
    assert (profile.n, profile.no_recall, profile.left_out) == (24, reason, {})
    assert set(english.arrays) - set(profile.arrays) == {"hits", "chance_hits", "words", "chance_words"}
    for name, array in profile.arrays.items():
        np.testing.assert_array_equal(array, english.arrays[name], err_msg=name)
    assert have_same_numbers(tiny_profile(vlm, samples=24, controls=("blank",), cache=tmp_path), profile)


def test_the_claim_that_needs_recall_is_inconclusive_without_it(vlm: Vlm, foreign: Callable[[str], None]) -> None:
    foreign("Japanese")
    claims = judge_claims(phase_reading(tiny_profile(vlm, samples=24)))
    late = claims["output-preparation"].parts[-1]
    assert (late.verdict, late.statement) == (ClaimVerdict.INCONCLUSIVE, f"recall is left out: {NO_WORD}")
    assert claims["output-preparation"].verdict is not ClaimVerdict.HOLDS


@pytest.mark.slow
@pytest.mark.parametrize("summary", [False, True])
def test_a_baseline_without_recall_is_stored_and_compared(
    vlm: Vlm, foreign: Callable[[str], None], tmp_path: Path, summary: bool
) -> None:
    english = tiny_profile(vlm, samples=64)
    foreign("Japanese")
    profile = tiny_profile(vlm, samples=64)
    baseline = read_baseline(write_baseline(tmp_path, profile, {}, phases_of(profile), summary=summary))
    assert baseline.profile.no_recall == NO_WORD
    for measured in (profile, english):
        comparison = compare(measured, baseline, FAMILIES["lens"])
        assert [finding.measure.name for finding in comparison.findings] == ["exit_agreement"]


def measured_again(cases: Cases, *arguments: str) -> tuple[str, str, str, dict[str, object]]:
    """Run the cases; return the terminal output, the Markdown, the page and the record."""
    here = cases.baselines.parent
    result = cases.run(
        *("-m", "regression or replication", "--phase-controls", "none", "--phase-report", "report"),
        *("--phase-markdown", "summary.md", "--phase-json", "record.json", *arguments),
    )
    assert result.parseoutcomes().get("errors", 0) == 0
    return (
        result.stdout.str(),
        (here / "summary.md").read_text(encoding="utf-8"),
        (here / "report" / "index.html").read_text(encoding="utf-8"),
        json.loads((here / "record.json").read_text(encoding="utf-8")),
    )


@pytest.mark.slow
def test_every_report_states_that_recall_is_left_out(cases: Cases, foreign: Callable[[str], None]) -> None:
    foreign("Japanese")
    measured_again(cases, "--phase-update-new")
    terminal, markdown, page, record = measured_again(cases)
    reason = f"recall is left out: {NO_WORD}"
    assert " ".join(reason.split()) in " ".join(terminal.split())
    assert f"- `tiny-llava-tiny`: {reason}" in markdown
    assert "Recall is left out: no caption has an English content word that the model" in page
    assert list(Draft202012Validator(record_schema()).iter_errors(record)) == []
    pair = record["pairs"]["tiny-llava-tiny"]  # type: ignore[index]
    assert pair["declared"]["recall_left_out"] == NO_WORD
    assert not RECALL & set(pair["means"])
    lens = next(line for line in record["verdicts"] if line["question"] == "lens")  # type: ignore[attr-defined]
    assert lens["verdict"] == "reproduces"


def test_a_profile_without_recall_is_plotted(vlm: Vlm, foreign: Callable[[str], None]) -> None:
    foreign("German")
    profile: Profile = tiny_profile(vlm, samples=24)
    texts = [text.get_text().replace("\n", " ") for text in plot(profile, "recall").texts]
    assert f"left out: {NOT_ENGLISH}" in texts
