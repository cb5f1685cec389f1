"""A profile or a baseline may lack any measure but the curves of the phases; what is absent is not compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from harness.analysis.mean_difference import Verdict
from harness.baselines.margin_table import margin_table
from harness.baselines.mean_curves import shown_measures
from harness.baselines.reference import reference_from_profile
from harness.baselines.store import Baseline, read_baseline, write_baseline
from harness.baselines.stored_arrays import pack_samples
from harness.baselines.stored_files import BaselineError, read_json, write_files
from harness.checks import check_equivalent, check_reproduces
from harness.judgement.largest_change import largest_change
from harness.judgement.phases import phase_reading, phases_of
from harness.judgement.regression import compare
from harness.judgement.side_by_side import reading_traces, side_by_side
from harness.profile.measures import FAMILIES, MEASURES, PHASE_CURVES
from harness.profile.profile import Profile
from harness.report.descriptions import describe_panel
from harness.report.details import detail_lines
from harness.report.figure_table import panel_table
from harness.report.figures import PANELS, phase_figure, plot
from harness.report.outcomes import pair_outcomes
from harness.report.record import record_schema, run_record
from harness.report.recorded_results import recorded_results
from harness.tests.support.judged import judge_profiles
from harness.tests.support.synthetic_profiles import synthetic_profile

ATTENTION = tuple(measure.name for measure in FAMILIES["attention"].measures)
LENS = ("hits", "chance_hits", "words", "chance_words", "exit_agreement")
OPTIONAL = tuple(name for name in MEASURES if name not in PHASE_CURVES and not name.startswith("recall_"))


def without(profile: Profile, names: Sequence[str]) -> Profile:
    """Return the profile without some of its arrays."""
    return dataclasses.replace(
        profile, arrays={name: array for name, array in profile.arrays.items() if name not in names}
    )


def store(root: Path, profile: Profile, *, summary: bool = False) -> Baseline:
    return read_baseline(write_baseline(root, profile, {}, phases_of(profile), summary=summary))


@pytest.mark.parametrize("summary", [False, True])
@pytest.mark.parametrize("names", [("norm_image", "weight_self"), ATTENTION, OPTIONAL])
def test_what_a_baseline_lacks_is_not_compared(tmp_path: Path, names: tuple[str, ...], summary: bool) -> None:
    profile = synthetic_profile()
    baseline = store(tmp_path, without(profile, names), summary=summary)
    assert not set(names) & set(baseline.margins)
    assert set(read_json(baseline.path)["means"]) & set(MEASURES) == set(MEASURES) - set(names)
    for family in FAMILIES.values():
        comparison = compare(profile, baseline, family)
        absent = {measure.name for measure in family.measures} & set(names)
        assert set(comparison.not_compared) == absent
        for reason in comparison.not_compared.values():
            assert reason.startswith("not in the baseline; record it again with ")
        assert [finding.measure for finding in comparison.findings] == [
            measure for measure in family.measures if measure.name not in absent
        ]
        assert (comparison.verdict == "not compared") is (comparison.findings == ())
        assert summary or comparison.verdict in ("reproduces", "not compared")


@pytest.mark.parametrize("names", [("norm_image", "weight_self"), ATTENTION, OPTIONAL])
def test_what_a_profile_lacks_is_not_compared(tmp_path: Path, names: tuple[str, ...]) -> None:
    baseline = store(tmp_path, synthetic_profile())
    profile = without(synthetic_profile(), names)
    for family in FAMILIES.values():
        comparison = compare(profile, baseline, family)
        assert comparison.not_compared == {
            measure.name: "not measured here" for measure in family.measures if measure.name in names
        }
    assert largest_change(profile, baseline).startswith("inter")


def test_another_model_that_lacks_a_measure_is_named() -> None:
    profile = synthetic_profile()
    other = reference_from_profile(without(dataclasses.replace(profile, model="other"), ATTENTION))
    comparison = compare(profile, other, FAMILIES["attention"])
    assert set(comparison.not_compared.values()) == {"not measured for other"}
    numbers = side_by_side(profile, other)
    assert "attention" not in numbers.verdicts
    assert "attention" not in [trace.name for trace in numbers.traces]
    assert [trace.name for trace in numbers.traces][:2] == ["similarity", "LogitLens recall"]


def test_equal_readings_are_traced_over_the_common_measures(tmp_path: Path) -> None:
    baseline = store(tmp_path, synthetic_profile())
    states = tuple(measure.name for measure in FAMILIES["states"].measures)
    traces = reading_traces(without(synthetic_profile(), ("norm_image", *LENS, *states)), baseline)
    assert [trace.name for trace in traces] == ["similarity", "attention"]


@pytest.mark.parametrize("check", [check_reproduces, check_equivalent])
@pytest.mark.parametrize("in_baseline", [True, False])
def test_a_family_that_is_absent_skips_its_tests(tmp_path: Path, check: object, in_baseline: bool) -> None:
    full, fewer = synthetic_profile(), without(synthetic_profile(), ATTENTION)
    profile, stored = (fewer, full) if in_baseline else (full, fewer)
    baseline = store(tmp_path, stored)
    comparison = compare(profile, baseline, FAMILIES["attention"])
    assert comparison.verdict is Verdict.NOT_COMPARED
    reason = "not measured here" if in_baseline else "not in the baseline; record it again with"
    with pytest.raises(pytest.skip.Exception) as skipped:
        check(profile, baseline, comparison)  # type: ignore[operator]
    text = " ".join(str(skipped.value).split())
    assert text.startswith("not compared: attention of the last token")
    assert reason in text


def test_changed_inputs_do_not_fail_an_absent_family(tmp_path: Path) -> None:
    profile = synthetic_profile()
    baseline = store(tmp_path, without(profile, ATTENTION))
    changed = dataclasses.replace(profile, token_hashes=("0", *profile.token_hashes[1:]))
    with pytest.raises(pytest.skip.Exception):
        check_reproduces(changed, baseline, compare(changed, baseline, FAMILIES["attention"]))


@pytest.mark.parametrize("name", [*PHASE_CURVES, "norm_image"])
def test_a_baseline_without_an_array_that_it_names_is_damaged(tmp_path: Path, name: str) -> None:
    profile = synthetic_profile()
    baseline = store(tmp_path, profile)
    content = read_json(baseline.path)
    if name in PHASE_CURVES:
        # The phases need these, so a file that does not name them is damaged as well.
        del content["means"][name]
    write_files(baseline.path, content, pack_samples(without(profile, (name,))))
    with pytest.raises(BaselineError, match=f"is damaged .*'{name}'"):
        read_baseline(baseline.path)


def test_margins_and_means_cover_the_measures_present() -> None:
    profile = without(synthetic_profile(), (*ATTENTION, *LENS))
    assert profile.no_recall == "it was not measured"
    assert not set(margin_table(profile, reference_from_profile(profile).calibration)) & set(ATTENTION)
    assert not set(shown_measures(profile)) & {*ATTENTION, "recall_5", "recall_chance_5", "exit_agreement"}


def test_absent_measures_are_reported_and_recorded(tmp_path: Path) -> None:
    results = judge_profiles(tmp_path, without(synthetic_profile(), ATTENTION))
    (outcome,) = pair_outcomes(results)
    assert outcome.regressions["attention"].verdict == "not compared"
    assert not outcome.regressions["attention"].changed
    assert outcome.verdict_text() == "reproduces its baseline"
    (note,) = [note for note in outcome.notes if "not measured here" in note]
    assert note.startswith("norm-based attention of the last token on image, norm-based attention")
    text = " ".join(str(line) for line in detail_lines(results, [outcome], 300))
    assert "not compared: attention" in text
    record = run_record(results)
    assert list(Draft202012Validator(record_schema()).iter_errors(record)) == []
    verdict = next(item for item in record["verdicts"] if item["question"] == "attention")
    assert verdict["verdict"] == "not compared"
    assert verdict["numbers"]["not_compared"] == dict.fromkeys(ATTENTION, "not measured here")
    again = recorded_results(record)
    (recorded,) = [result for result in again.verdicts if result.question == "attention"]
    assert (recorded.verdict, len(recorded.parts)) == ("not compared", len(ATTENTION))


@pytest.mark.parametrize("names", [ATTENTION, OPTIONAL, (*OPTIONAL, *LENS)])
def test_a_profile_that_lacks_measures_is_plotted(names: tuple[str, ...]) -> None:
    profile = without(synthetic_profile(), names)
    phase_figure(profile)
    reading = phase_reading(profile)
    for panel in PANELS:
        assert describe_panel(panel, profile, reading)
        panel_table(panel, profile, reading, None).to_csv()
    axes = plot(profile, "attention")
    assert "not measured" in [text.get_text() for text in axes.texts]
    assert np.isfinite(profile["inter"]).all()
