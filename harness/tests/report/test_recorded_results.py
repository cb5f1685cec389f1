"""The page from a kept record says and draws the same as the page of the run; other files are refused clearly."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.judgement.weights import WeightPart, WeightParts
from harness.profile.recorded_profile import rows_with_band
from harness.report.against import compare_models
from harness.report.outcomes import pair_outcomes
from harness.report.record import BAND
from harness.report.recorded_comparison import recorded_comparison
from harness.report.recorded_results import RecordError, read_record, recorded_results, report_from_record
from harness.report.verdict_numbers import verdict_numbers
from harness.report.write import write_report
from harness.storage.json_text import dump
from harness.tests.support.drawings import synthetic_drawing, without_raster_and_pdf
from harness.tests.support.judged import judge_profiles, make_differing_profile
from harness.tests.support.synthetic_profiles import CURVES, synthetic_profile

_CREATED = re.compile(r"created [\d-]+ [\d:]+ UTC")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on a pair that differs and one that reproduces, in an order that is not the alphabet's."""
    folder = tmp_path_factory.mktemp("recorded")
    settings: dict[str, Any] = {"rope_theta": 10000.0, "act": "silu"}
    noise, blank = (synthetic_profile(seed=seed).arrays for seed in (1, 2))
    controls = {
        "noise": {name: 0.8 * noise[name][:40] for name in CURVES},
        "blank": {name: 0.05 + 0.9 * blank[name] for name in CURVES},
    }
    same = dataclasses.replace(
        synthetic_profile(), dataset="others", drawings=(synthetic_drawing("b", grid=False),), controls=controls
    )
    same = dataclasses.replace(same, control_samples={"noise": same.sample_ids[:40]})
    other = dataclasses.replace(
        make_differing_profile(), drawings=(synthetic_drawing("c"),), configuration=settings | {"rope_theta": 10100.0}
    )
    findings = judge_profiles(folder / "kept", same, other, configuration=settings)
    (folder / "kept" / "known_differences.toml").write_text('[made-others]\nalignment = "measured so"\n')
    with without_raster_and_pdf():
        write_report(findings, (), folder / "report")
    return folder / "report"


@pytest.fixture(scope="module")
def again(report: Path) -> Path:
    """The report made from the record of the first one."""
    with without_raster_and_pdf():
        index = report_from_record(report / "phase.json", report.parent / "again")
    assert index == report.parent / "again" / "index.html"
    return index.parent


def test_the_page_from_a_record_has_the_texts_and_numbers_of_the_run(report: Path, again: Path) -> None:
    pages = [(folder / "index.html").read_text(encoding="utf-8") for folder in (report, again)]
    texts = [_CREATED.sub("", re.sub(r"(?s)<svg.*?</svg>", "", page)) for page in pages]
    assert len(texts[0]) > 10_000
    assert texts[0] == texts[1]
    tables = sorted((report / "figures").glob("*.csv"))
    assert len(tables) > 10
    for table in tables:
        drawn, drawn_again = (
            _NUMBER.findall(path.read_text(encoding="utf-8")) for path in (table, again / "figures" / table.name)
        )
        # Curves have six digits in the record.
        np.testing.assert_allclose(np.array(drawn, float), np.array(drawn_again, float), rtol=1e-4, atol=1e-5)
    assert (again / "phase.json").read_bytes() == (report / "phase.json").read_bytes()
    assert {file.name for file in (again / "figures").iterdir()} == {
        file.name for file in (report / "figures").iterdir()
    }


def test_curves_and_outcomes_are_those_of_the_run(report: Path) -> None:
    content = read_record(report)
    results = recorded_results(content)
    assert [str(pair) for pair in results.profiles] == ["made-others", "made-curves"]
    for outcome in pair_outcomes(results):
        entry = content["pairs"][str(outcome.pair)]
        for name, band in entry["bands"].items():
            rows = outcome.profile[name]
            np.testing.assert_allclose(rows.mean(0), entry["means"][name], atol=1e-12)
            np.testing.assert_array_equal(np.quantile(rows, BAND, axis=0), [band["low"], band["high"]])
        assert list(outcome.reading.confirmed) == entry["reading"]["confirmed"]
    for result, verdict in zip(results.verdicts, content["verdicts"], strict=True):
        assert json.loads(dump(verdict_numbers(result))) == verdict["numbers"]
        assert (result.question, result.verdict, result.changed) == tuple(
            verdict[name] for name in ("question", "verdict", "changed")
        )


def test_a_comparison_of_two_models_is_the_one_of_the_run() -> None:
    configuration = {"rope_theta": 10000.0, "act": "silu"}
    measured = dataclasses.replace(make_differing_profile(), configuration=configuration | {"rope_theta": 10100.0})
    other = dataclasses.replace(synthetic_profile(), model="second", configuration=configuration)
    comparison = compare_models(measured, other, weights=_weights())
    record = json.loads(dump(comparison.record()))
    restored = recorded_comparison(record)
    assert restored.lines() == comparison.lines()
    assert json.loads(dump(restored.record())) == record


def test_a_mean_outside_the_band_keeps_mean_and_band() -> None:
    mean, low, high = np.array([0.05, 0.95, 0.5]), np.array([0.0, 1.0, 0.2]), np.array([0.0, 1.0, 0.9])
    rows = rows_with_band(mean, low, high)
    np.testing.assert_allclose(rows.mean(0), mean)
    np.testing.assert_array_equal(np.quantile(rows, BAND, axis=0), [low, high])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: "{", "is no record of a run, as it is not JSON"),
        (lambda _: "[1]", "is no record of a run: give the JSON file"),
        (lambda content: json.dumps(content | {"schema": 4, "harness": "0.5.0"}), "schema 4, written by .* 0.5.0"),
        (lambda content: json.dumps(content | {"verdicts": [{}]}), "is damaged .*pair"),
        (lambda content: json.dumps(content | {"pairs": []}), "is damaged .*list"),
        (
            lambda content: json.dumps(content | {"pairs": {**content["pairs"], "made-curves": {}}}),
            "is damaged .*model",
        ),
    ],
)
def test_other_files_are_refused_in_a_sentence(
    report: Path, tmp_path: Path, change: Callable[[dict[str, Any]], str], message: str
) -> None:
    file = tmp_path / "kept.json"
    file.write_text(change(json.loads((report / "phase.json").read_text(encoding="utf-8"))), encoding="utf-8")
    with pytest.raises(RecordError, match=message):
        report_from_record(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot be read"):
        report_from_record(tmp_path / "none.json", tmp_path / "out")


def _weights() -> tuple[WeightParts, WeightParts]:
    parts = WeightParts((WeightPart("a", "b"),) * synthetic_profile().depth, {"final norm": WeightPart("c", "d")})
    changed = (WeightPart("a", "x"), *parts.layers[1:])
    return parts, dataclasses.replace(parts, layers=changed)
