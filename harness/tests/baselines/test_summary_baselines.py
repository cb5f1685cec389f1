"""Summary baselines hold no value of any sample, and give the same verdicts as the samples."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis import turning_points
from harness.analysis.agreement import Agreement
from harness.analysis.curves import CurveSummary, FloatArray, rows_from_summary, summarise
from harness.analysis.simultaneous import covariance_root
from harness.analysis.turning_points import Boundaries, boundary_intervals
from harness.baselines.store import Baseline, BaselineError, is_summary_of, read_baseline, write_baseline
from harness.baselines.stored_files import read_json, write_files
from harness.checks import check_equivalent, check_reproduces
from harness.judgement.phases import phases_of
from harness.judgement.regression import compare, compare_boundaries, compare_intervals
from harness.lab.simulation.synthetic import PLATEAU, SHALLOW, SHARP, Shape
from harness.profile.measures import CURVES, FAMILIES, MEASURES
from harness.profile.profile import Profile
from harness.tests.support.summaries import find_names, read_shapes
from harness.tests.support.synthetic_curves import draw_curves
from harness.tests.support.synthetic_profiles import L, N, join_lines, synthetic_profile
from harness.tests.support.two_sides import judge_agreement


def same_summary(actual: CurveSummary, expected: CurveSummary) -> None:
    deviation = np.sqrt(np.diag(expected.covariance))
    assert actual.n == expected.n
    assert np.abs(actual.mean - expected.mean).max() <= 1e-9 * np.abs(expected.mean).max()
    assert (np.abs(actual.covariance - expected.covariance) <= 1e-9 * np.outer(deviation, deviation)).all()


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(3, 40),
    points=st.integers(2, 45),
    rank=st.integers(1, 45),
    constant=st.booleans(),
    scales=st.lists(st.sampled_from([1e-4, 1e-2, 1.0, 50.0]), min_size=45, max_size=45),
    clusters=st.lists(st.integers(0, 25), min_size=40, max_size=40),
)
def test_the_rows_of_a_summary_have_that_summary(
    seed: int, n: int, points: int, rank: int, constant: bool, scales: list[float], clusters: list[int]
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(points) + rng.standard_normal((n, rank)) @ rng.standard_normal((rank, points)) * np.array(
        scales[:points]
    )
    if constant:
        x[:, points // 2] = 0.25
    labels = [*clusters[: n - 1], 26]
    expected = summarise(x, labels)
    rows = rows_from_summary(expected)
    assert rows.shape == (len(set(labels)), points)
    same_summary(summarise(rows), expected)
    assert np.array_equal(rows, rows_from_summary(expected))
    if constant:
        assert (rows[:, points // 2] == expected.mean[points // 2]).all()


def test_a_layer_that_nearly_follows_from_the_others_keeps_its_own_covariance() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 6))
    x[:, 3] = x[:, 1] + x[:, 2] + 2e-6 * rng.standard_normal(50)
    same_summary(summarise(rows_from_summary(summarise(x))), summarise(x))


@pytest.mark.parametrize(
    ("n", "message"),
    [(1, "a summary of 1 rows has no covariance"), (4, "4 rows cannot have a covariance of rank above 3")],
)
def test_a_summary_that_no_rows_have_is_refused(n: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rows_from_summary(CurveSummary(np.zeros(5), np.eye(5), n))


def test_as_many_rows_as_the_rank_needs_are_enough() -> None:
    same_summary(
        summarise(rows_from_summary(CurveSummary(np.ones(5), np.eye(5), 6))), CurveSummary(np.ones(5), np.eye(5), 6)
    )


def same_agreement(actual: Agreement, expected: Agreement) -> None:
    assert actual.verdict is expected.verdict
    for first, second in ((actual.level, expected.level), (actual.shape, expected.shape)):
        assert first is not None
        assert second is not None
        assert (first.verdict, first.layers, first.layer, first.n, first.n_baseline) == (
            second.verdict,
            second.layers,
            second.layer,
            second.n,
            second.n_baseline,
        )
        assert first.interval == pytest.approx(second.interval, abs=1e-6)


@pytest.mark.parametrize("shift", [0.0, 0.03, 0.2])
@pytest.mark.parametrize("size", [1, 2])
def test_an_unpaired_verdict_equals_that_of_the_samples(shift: float, size: int) -> None:
    baseline_rows = draw_curves(SHARP.curve(30), 128, seed=1, sd=0.02)
    measured = draw_curves(SHARP.curve(30), 96, seed=2, sd=0.02) + shift * (np.arange(31) == 12)
    labels = [row // size for row in range(128)]
    rows = rows_from_summary(summarise(baseline_rows, labels))

    def verdict(baseline: FloatArray, clusters: list[int] | None) -> Agreement:
        return judge_agreement(measured, baseline, 0.03, paired=False, alpha_diff=1e-4, baseline_clusters=clusters)

    same_agreement(verdict(rows, None), verdict(baseline_rows, labels))


@pytest.mark.parametrize("shape", [SHARP, PLATEAU, SHALLOW], ids=lambda shape: shape.name)
@pytest.mark.parametrize("n", [64, 128, 400])
def test_boundaries_from_the_rows_match_those_from_the_summary(
    shape: Shape, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw_from_summary(rows: FloatArray, draws: int, seed: int) -> FloatArray:
        """Draw means from the multivariate t distribution instead of resampling."""
        normal = covariance_root(summary.covariance / summary.n) @ rng.standard_normal((summary.points, draws))
        return summary.mean + (normal / np.sqrt(rng.chisquare(summary.df, size=draws) / summary.df)).T

    def ends(actual: Boundaries) -> FloatArray:
        return np.array([[height.estimate, height.low, height.high] for height in actual.half_heights])

    summary = summarise(draw_curves(shape.curve(30), n, seed=n))
    rng = np.random.default_rng(0)
    rows = boundary_intervals(rows_from_summary(summary))
    monkeypatch.setattr(turning_points, "resampled_means", draw_from_summary)
    drawn = boundary_intervals(rows_from_summary(summary))
    assert np.abs(ends(rows) - ends(drawn)).max() < 0.1


@pytest.fixture(scope="module")
def made() -> Profile:
    """A profile whose samples share images in pairs."""
    plain = synthetic_profile()
    hidden = tuple(f"hash-of-{row}" for row in range(N))
    return dataclasses.replace(
        plain,
        clusters=tuple(f"image-{row // 2}" for row in range(N)),
        token_hashes=hidden,
        pixel_hashes=hidden,
        controls={"noise": dict.fromkeys(CURVES, plain["image"])},
    )


@pytest.fixture
def summed(made: Profile, tmp_path: Path) -> Baseline:
    return read_baseline(write_baseline(tmp_path, made, {}, phases_of(made), summary=True))


def changed(profile: Profile, **arrays: Any) -> Profile:
    return dataclasses.replace(profile, arrays={**profile.arrays, **arrays})


def test_the_families_cover_all_measures() -> None:
    assert {measure.name for family in FAMILIES.values() for measure in family.measures} == set(MEASURES)


def test_a_summary_holds_no_value_of_a_single_sample(made: Profile, summed: Baseline, tmp_path: Path) -> None:
    expected: dict[str, tuple[int, ...]] = {"rows": ()}
    for name in MEASURES:
        points = made[name].shape[1]
        expected |= {f"{name}.mean": (points,), f"{name}.covariance": (points, points)}
    assert read_shapes(summed.path) == expected
    names = {*made.sample_ids, *made.clusters, *made.token_hashes}
    assert not find_names(summed.path, names)
    complete = write_baseline(tmp_path / "samples", made, {}, phases_of(made))
    assert set(find_names(complete, names)) == names


def test_a_summary_is_read_back_with_the_moments_of_the_samples(made: Profile, summed: Baseline) -> None:
    assert (summed.profile.n, summed.samples, summed.summarised_samples) == (N // 2, N, N)
    assert (summed.profile.depth, summed.profile.environment) == (L, made.environment)
    for name in MEASURES:
        same_summary(summarise(summed.profile[name], summed.profile.clusters), summarise(made[name], made.clusters))
    assert f"(summary of {N} samples, recorded with torch 2.15.0" in summed.describe()


def test_a_summary_stores_no_power_of_paired_comparisons(made: Profile, tmp_path: Path) -> None:
    power = {"inter-modal similarity": {"equivalent with nothing changed": 1.0}}
    for summary, expected in ((False, power), (True, {})):
        path = write_baseline(tmp_path, made, {}, phases_of(made), None, power, summary=summary)
        assert json.loads(path.read_text())["power"] == expected


def test_a_run_is_compared_unpaired_and_needs_no_reproduction(made: Profile, summed: Baseline) -> None:
    for family in FAMILIES.values():
        comparison = compare(made, summed, family)
        assert not comparison.inputs.changed
        assert not any(finding.agreement.mean.paired for finding in comparison.findings)
        assert comparison.verdict != "differs", family.name
        with pytest.raises(pytest.skip.Exception, match="the baseline is a summary of its samples"):
            check_reproduces(made, summed, comparison)
    assert compare(made, summed, FAMILIES["inter"]).verdict == "equivalent"
    assert compare_boundaries(made, summed).verdict == "equivalent"
    assert compare_intervals(made, summed).verdict == "equivalent"


def test_a_large_change_differs_and_the_message_mentions_the_summary(made: Profile, summed: Baseline) -> None:
    later = np.interp(np.arange(L + 1), [0, 4, 7, 11, 12], [0.1, 0.5, 0.2, 0.8, 0.3]).astype(np.float32)
    measured = changed(made, inter=made["inter"] - made["inter"].mean(0) + later)
    with pytest.raises(AssertionError) as caught:
        check_equivalent(measured, summed, compare(measured, summed, FAMILIES["inter"]))
    assert f"n = {N // 2} unpaired -> DIFFERS" in join_lines(caught.value)
    assert f"(summary of {N} samples, recorded with" in join_lines(caught.value)
    assert compare_boundaries(measured, summed).verdict == "differs"
    lost = made.arrays["hits"] // 2
    assert compare(changed(made, hits=lost), summed, FAMILIES["lens"]).verdict == "differs"


def test_a_summary_recognises_its_profile(made: Profile, summed: Baseline) -> None:
    assert is_summary_of(summed, made)
    assert not is_summary_of(summed, changed(made, exit_agreement=made["exit_agreement"] * 0))
    assert not is_summary_of(summed, dataclasses.replace(made, weights="other"))
    assert not is_summary_of(summed, made.select(made.sample_ids[2:]))
    assert not is_summary_of(summed, dataclasses.replace(made, controls={}))


def test_a_pair_stored_as_a_summary_remains_a_summary(made: Profile, summed: Baseline) -> None:
    root = summed.path.parents[1]
    again = read_baseline(write_baseline(root, made, {}, phases_of(made)))
    elsewhere = dataclasses.replace(made, environment=dataclasses.replace(made.environment, device="cuda"))
    second = read_baseline(write_baseline(root, elsewhere, {}, phases_of(made)))
    assert second.path != again.path
    assert again.summarised_samples == second.summarised_samples == N
    other_data = dataclasses.replace(made, dataset="open")
    assert read_baseline(write_baseline(root, other_data, {}, phases_of(made))).summarised_samples is None


def test_files_without_a_form_hold_samples(made: Profile, tmp_path: Path) -> None:
    path = write_baseline(tmp_path, made, {}, phases_of(made))
    content = read_json(path)
    assert content.pop("form") == "samples"
    write_files(path, content)
    assert read_baseline(path).profile.sample_ids == made.sample_ids
    write_files(path, content | {"form": "verse"})
    with pytest.raises(BaselineError, match=r"curves.json is damaged .*'verse'"):
        read_baseline(path)
