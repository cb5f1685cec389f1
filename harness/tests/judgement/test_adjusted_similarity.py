"""The anisotropy-adjusted similarity of an unchanged model reproduces, however many samples a run has."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest

from harness.baselines.reference import reference_from_profile
from harness.baselines.store import Baseline
from harness.judgement.regression import Comparison, compare, compare_boundaries, compare_intervals
from harness.judgement.results import family_result
from harness.judgement.side_by_side import reading_traces
from harness.lab.simulation.populations import to_baseline
from harness.profile.measures import CURVES, FAMILIES, KNOCKOUT_FAMILY
from harness.profile.pair import Pair
from harness.profile.profile import Profile
from harness.report.meanings import explain_verdict
from harness.report.outcomes import note_lines
from harness.tests.support.tiny import have_same_numbers, tiny_profile, tiny_vlm

INTER = FAMILIES["inter"]
ADJUSTED = "inter_adjusted"


@functools.cache
def first(n: int) -> Profile:
    """Return the profile of the first samples, not to be modified."""
    return tiny_profile(tiny_vlm(layers=6), samples=n, batch_size=8)


@pytest.fixture
def full(tiny_data: None) -> Profile:
    return first(48)


def stored_baseline(profile: Profile) -> Baseline:
    """Return the profile as a stored baseline, which has no cosines between samples."""
    return to_baseline(dataclasses.replace(profile, between_samples=None))


def reproduced_by_measure(comparison: Comparison) -> dict[str, bool | None]:
    return {finding.measure.name: finding.agreement.reproduced for finding in comparison.findings}


def test_readjusting_over_some_samples_equals_measuring_only_them(full: Profile) -> None:
    for n in (2, 7, 40):
        alone = first(n)
        readjusted = full.readjusted_similarity(range(n))
        assert readjusted is not None
        np.testing.assert_allclose(readjusted, alone[ADJUSTED], atol=2e-7)
        assert np.abs(full[ADJUSTED][:n] - alone[ADJUSTED]).max() > 1e-5
    reversed_profile = full.select(full.sample_ids[::-1])
    np.testing.assert_allclose(
        reversed_profile.readjusted_similarity(range(40, 48)), full.readjusted_similarity(range(7, -1, -1)), atol=1e-12
    )
    assert np.array_equal(full.readjusted_similarity(range(48)), full[ADJUSTED])
    assert dataclasses.replace(full, between_samples=None).readjusted_similarity(range(5)) is None
    assert full.readjusted_similarity([1]) is None


def test_the_adjusted_similarity_subtracts_the_mean_cosine_to_other_samples(full: Profile) -> None:
    cosines = full.between_samples
    assert cosines is not None
    assert cosines.shape == (7, 48, 48)
    others = (cosines.sum(axis=2) - cosines.diagonal(axis1=1, axis2=2)).T / 47
    np.testing.assert_allclose(full["inter"] - others, full[ADJUSTED], atol=2e-6)
    np.testing.assert_allclose(cosines.diagonal(axis1=1, axis2=2).T, full["inter"], atol=2e-6)


@pytest.mark.usefixtures("tiny_data")
@pytest.mark.parametrize(("n", "baseline_n"), [(48, 48), (48, 33), (48, 40), (33, 48), (12, 48), (48, 12), (12, 12)])
def test_an_unchanged_model_reproduces_with_any_number_of_samples(n: int, baseline_n: int) -> None:
    measured, baseline_profile = first(n), first(baseline_n)
    baseline = stored_baseline(baseline_profile)
    comparison = compare(measured, baseline, INTER)
    assert comparison.verdict == "reproduces"
    # A stored baseline cannot be adjusted over fewer samples; every other measure is compared with it.
    assert set(comparison.not_compared) == ({ADJUSTED} if n < baseline_n else set())
    assert reproduced_by_measure(comparison) == {
        name: True for name in ("inter", "inter_instruction", ADJUSTED) if name not in comparison.not_compared
    }
    for name, family in FAMILIES.items():
        expected = "not compared" if name == KNOCKOUT_FAMILY else "reproduces"
        assert compare(measured, baseline, family).verdict == expected
    assert compare_boundaries(measured, baseline).verdict == "reproduces"
    assert compare_intervals(measured, baseline).verdict == "reproduces"
    assert [trace.same_until for trace in reading_traces(measured, baseline)] == [6] * 5


def test_two_models_of_one_run_are_adjusted_over_their_common_samples(full: Profile) -> None:
    comparison = compare(first(40), reference_from_profile(dataclasses.replace(full, model="other")), INTER)
    assert reproduced_by_measure(comparison) == dict.fromkeys(("inter", "inter_instruction", ADJUSTED), True)
    assert comparison.not_compared == {}


def test_a_change_of_the_adjusted_similarity_is_found_with_more_samples(full: Profile) -> None:
    few = first(40)
    arrays = {name: few[name] + np.float32(0.001) if name == ADJUSTED else few[name] for name in few.arrays}
    assert (
        reproduced_by_measure(compare(full, stored_baseline(dataclasses.replace(few, arrays=arrays)), INTER))[ADJUSTED]
        is False
    )


def test_a_measure_that_is_not_compared_is_reported_with_its_reason(full: Profile) -> None:
    few = first(12)
    comparison = compare(few, stored_baseline(full), INTER)
    reason = comparison.not_compared[ADJUSTED]
    assert reason == (
        "each sample is adjusted over the other 47 in the baseline and the other 11 here, of which 12 are common"
    )
    result = family_result(Pair("tiny-llava", "tiny"), comparison, stored_baseline(full))
    row = explain_verdict(result).rows[-1]
    assert (row.verdict, row.sentence) == ("not asked", f"{reason[:1].upper()}{reason[1:]}.")
    assert note_lines(result) == [f"anisotropy-adjusted inter-modal similarity: not compared, {reason}"]


def test_cosines_between_samples_change_no_value_of_a_profile(full: Profile) -> None:
    assert set(CURVES) <= set(full.arrays)
    assert have_same_numbers(full, dataclasses.replace(full, between_samples=None))
