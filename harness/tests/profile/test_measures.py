"""The table of measures: one row and one reading suffice to store, judge and plot a measure."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from harness.baselines.mean_curves import shown_measures
from harness.baselines.reference import reference_from_profile
from harness.baselines.store import Baseline, read_baseline, write_baseline
from harness.baselines.stored_arrays import pack_samples
from harness.baselines.stored_files import BaselineError, read_json, write_files
from harness.judgement.phases import phase_reading, phases_of
from harness.judgement.regression import compare
from harness.judgement.side_by_side import reading_traces, side_by_side
from harness.measurement.arrays import measured_arrays
from harness.profile.measures import (
    ATTENTION,
    EXIT,
    FAMILIES,
    KINDS,
    MEASURES,
    RECALL,
    SIMILARITY,
    CurveStyle,
    Measure,
    layer_ranges,
)
from harness.profile.profile import Profile
from harness.report.messages import changed_measure_lines
from harness.report.panels import attention_panel
from harness.report.record import bands
from harness.tests.support.synthetic_profiles import L, N, replace_arrays, synthetic_profile

ROW = Measure(
    "norm_first", "norm-based attention of the last token on the first", "attention", ATTENTION, "norm_shares", 4,
    CurveStyle("grey", "-", "the first token"),
)  # fmt: skip


@pytest.fixture
def extended(monkeypatch: pytest.MonkeyPatch) -> Profile:
    """A profile with an additional measure, whose row is added to the table."""
    monkeypatch.setitem(MEASURES, ROW.name, ROW)
    profile = synthetic_profile()
    shares = 0.5 * (profile["norm_image"] + profile["norm_other"])
    return replace_arrays(profile, norm_first=shares)


@pytest.fixture
def stored(extended: Profile, tmp_path: Path) -> Baseline:
    return read_baseline(write_baseline(tmp_path, extended, {}, phases_of(extended)))


def with_changed_measure(profile: Profile) -> Profile:
    """Return the profile with the additional measure higher by 0.2 in layers 3 and 4, and other weights."""
    shares = profile["norm_first"].copy()
    shares[:, 2:4] += 0.2
    return dataclasses.replace(replace_arrays(profile, norm_first=shares), weights="f" * 16)


def test_a_measure_is_stored_if_it_has_a_row_in_the_table(extended: Profile, stored: Baseline, tmp_path: Path) -> None:
    assert np.array_equal(stored.profile["norm_first"], extended["norm_first"])
    # As for all attention measures, the margin is the larger of 0.01 and the declared share of the range.
    spread = float(np.ptp(extended["norm_first"].mean(0, dtype=np.float64)))
    assert stored.margins["norm_first"] == pytest.approx(max(0.01, 0.10 * spread), rel=1e-5)
    assert len(read_json(stored.path)["means"]["norm_first"]) == L
    assert "norm_first" in shown_measures(extended)
    assert set(bands(extended)["norm_first"]) == {"low", "high"}
    summary = read_baseline(write_baseline(tmp_path / "summary", extended, {}, phases_of(extended), summary=True))
    np.testing.assert_allclose(summary.profile["norm_first"].mean(0), extended["norm_first"].mean(0), rtol=1e-6)


def test_a_baseline_without_the_array_of_a_measure_is_damaged(extended: Profile, stored: Baseline) -> None:
    remaining = {name: array for name, array in extended.arrays.items() if name != "norm_first"}
    write_files(stored.path, read_json(stored.path), pack_samples(dataclasses.replace(extended, arrays=remaining)))
    with pytest.raises(BaselineError, match=r"is damaged .*'norm_first'"):
        read_baseline(stored.path)


def test_a_measure_is_judged_if_it_has_a_row_in_the_table(extended: Profile, stored: Baseline) -> None:
    same = compare(extended, stored, FAMILIES["attention"])
    assert [finding.measure for finding in same.findings][-1] is ROW
    assert same.verdict == "reproduces"
    measured = with_changed_measure(extended)
    comparison = compare(measured, stored, FAMILIES["attention"])
    differing = [finding for finding in comparison.findings if finding.agreement.verdict == "differs"]
    assert [finding.measure for finding in differing] == [ROW]
    text = " ".join(changed_measure_lines(differing[0], measured))
    assert f"{ROW.title} of made on curves differs at layers 3-4:" in text
    verdicts = {name: compare(measured, stored, family).verdict for name, family in FAMILIES.items()}
    assert verdicts == dict.fromkeys(FAMILIES, "reproduces") | {"attention": "differs"}


def test_a_measure_is_compared_between_models_if_it_has_a_row_in_the_table(extended: Profile, stored: Baseline) -> None:
    other = dataclasses.replace(with_changed_measure(extended), model="other")
    numbers = side_by_side(other, reference_from_profile(extended))
    (difference,) = numbers.beyond_margin
    assert (difference.measure, difference.measure.axis.describe(difference.indices)) == (ROW, "layers 3-4")
    # Up to layer 2 all attention is the same.
    assert {trace.name: trace.same_until for trace in reading_traces(with_changed_measure(extended), stored)} == {
        "similarity": L, "LogitLens recall": L, "attention": 2,
        **dict.fromkeys(("norms of states", "steps of states", "visual integration"), L),
    }  # fmt: skip


def test_a_measure_is_plotted_if_it_has_a_row_with_a_line_style(extended: Profile) -> None:
    axes = Figure().subplots()
    attention_panel(axes, extended, phase_reading(extended))
    assert axes.get_legend() is not None
    assert "the first token" in [text.get_text() for text in axes.get_legend().get_texts()]


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_a_row_names_the_array_of_the_readings(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    kind = SIMILARITY if dtype == "float32" else EXIT
    monkeypatch.setitem(MEASURES, "new", Measure("new", "a new measure", "inter", kind, "kernel"))
    rng = np.random.default_rng(0)
    stacked: dict[str, Any] = {
        "similarity": rng.random((3, 5, 5)), "post_norm": rng.random((3, 5)), "means": rng.random((3, 5, 2, 7)),
        "norm_shares": rng.random((3, 4, 4)), "weight_shares": rng.random((3, 4, 4)),
        "hits": rng.integers(0, 3, (3, 5, 2, 2)), "exit_agreement": rng.random((3, 5)) < 0.5,
        "kernel": 3.0 * rng.random((3, 5)), "norm_ratio": rng.random((3, 5)), "step_cosine": rng.random((3, 4, 2)),
        "sink_share": rng.random((3, 4)), "instruction_share": rng.random((3, 4)),
    }  # fmt: skip
    arrays = measured_arrays(stacked, (3, 3, 3), (2, 2, 2))
    assert arrays["new"].dtype == dtype
    np.testing.assert_array_equal(arrays["new"], stacked["kernel"].astype(dtype))
    assert "post_norm_new" not in arrays


def test_every_judged_array_has_a_row() -> None:
    profile = synthetic_profile()
    expected = {name for measure in MEASURES.values() for name in measure.arrays}
    assert {name for name in profile.arrays if not name.startswith("post_norm_")} == expected
    assert profile.measured(MEASURES) == tuple(MEASURES)
    comparisons = [compare(profile, reference_from_profile(profile), family) for family in FAMILIES.values()]
    assert [finding.measure for part in comparisons for finding in part.findings] == list(MEASURES.values())


def test_every_row_names_its_axis_family_and_kind() -> None:
    profile = synthetic_profile()
    for name, measure in MEASURES.items():
        positions = measure.axis.positions(range(profile[name].shape[1]))
        assert (positions[0], positions[-1]) == (measure.axis.first, L), name
        assert measure.name == name
        assert measure.family in FAMILIES
        assert measure.kind in KINDS
        assert (measure.kind is RECALL) == name.startswith("recall_")
    assert len({measure.title for measure in MEASURES.values()}) == len(MEASURES)
    assert profile["inter"].shape == (N, L + 1)


def test_layers_are_numbered_from_one_and_residual_points_from_zero() -> None:
    assert SIMILARITY.axis.describe([0, 2, 3]) == "residual points 0, 2-3"
    assert ATTENTION.axis.describe([4]) == "layer 5"
    assert ATTENTION.axis.positions([0, 1]) == (1, 2)
    assert layer_ranges([]) == ""
