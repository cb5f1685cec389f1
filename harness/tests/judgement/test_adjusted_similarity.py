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
from harness.profile.measures import CURVES, FAMILIES
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
def whole(tiny_data: None) -> Profile:
    return first(48)


def stored_of(profile: Profile) -> Baseline:
    """Return the profile as it comes back from a file, where no cosines between the samples are."""
    return to_baseline(dataclasses.replace(profile, between_samples=None))


def judged(comparison: Comparison) -> dict[str, bool | None]:
    return {finding.measure.name: finding.agreement.reproduced for finding in comparison.findings}


def test_adjusting_over_some_samples_is_measuring_these_alone(whole: Profile) -> None:
    for n in (2, 7, 40):
        alone = first(n)
        found = whole.readjusted_similarity(range(n))
        assert found is not None
        np.testing.assert_allclose(found, alone[ADJUSTED], atol=2e-7)
        assert np.abs(whole[ADJUSTED][:n] - alone[ADJUSTED]).max() > 1e-5
    turned = whole.select(whole.sample_ids[::-1])
    np.testing.assert_allclose(
        turned.readjusted_similarity(range(40, 48)), whole.readjusted_similarity(range(7, -1, -1)), atol=1e-12
    )
    assert np.array_equal(whole.readjusted_similarity(range(48)), whole[ADJUSTED])
    assert dataclasses.replace(whole, between_samples=None).readjusted_similarity(range(5)) is None
    assert whole.readjusted_similarity([1]) is None


def test_the_control_of_adjusting_is_the_definition(whole: Profile) -> None:
    cosines = whole.between_samples
    assert cosines is not None
    assert cosines.shape == (7, 48, 48)
    others = (cosines.sum(axis=2) - cosines.diagonal(axis1=1, axis2=2)).T / 47
    np.testing.assert_allclose(whole["inter"] - others, whole[ADJUSTED], atol=2e-6)
    np.testing.assert_allclose(cosines.diagonal(axis1=1, axis2=2).T, whole["inter"], atol=2e-6)


@pytest.mark.usefixtures("tiny_data")
@pytest.mark.parametrize(("now", "then"), [(48, 48), (48, 33), (48, 40), (33, 48), (12, 48), (48, 12), (12, 12)])
def test_an_unchanged_model_reproduces_for_any_n(now: int, then: int) -> None:
    run, held = first(now), first(then)
    baseline = stored_of(held)
    comparison = compare(run, baseline, INTER)
    assert comparison.verdict == "reproduces"
    # A stored baseline of more samples cannot be adjusted over fewer; every other measure is held to it.
    assert set(comparison.not_compared) == ({ADJUSTED} if now < then else set())
    assert judged(comparison) == {
        name: True for name in ("inter", "inter_instruction", ADJUSTED) if name not in comparison.not_compared
    }
    for family in FAMILIES.values():
        assert compare(run, baseline, family).verdict == "reproduces"
    assert compare_boundaries(run, baseline).verdict == "reproduces"
    assert compare_intervals(run, baseline).verdict == "reproduces"
    assert [trace.same_until for trace in reading_traces(run, baseline)] == [6, 6, 6]


def test_two_models_of_one_run_are_adjusted_over_their_common_samples(whole: Profile) -> None:
    comparison = compare(first(40), reference_from_profile(dataclasses.replace(whole, model="other")), INTER)
    assert judged(comparison) == dict.fromkeys(("inter", "inter_instruction", ADJUSTED), True)
    assert comparison.not_compared == {}


def test_a_change_of_the_adjusted_similarity_is_found_with_more_samples(whole: Profile) -> None:
    few = first(40)
    moved = {name: few[name] + np.float32(0.001) if name == ADJUSTED else few[name] for name in few.arrays}
    assert judged(compare(whole, stored_of(dataclasses.replace(few, arrays=moved)), INTER))[ADJUSTED] is False


def test_the_reason_of_what_is_not_compared_is_told(whole: Profile) -> None:
    few = first(12)
    comparison = compare(few, stored_of(whole), INTER)
    reason = comparison.not_compared[ADJUSTED]
    assert reason == (
        "each sample is adjusted over the other 47 in the baseline and the other 11 here, of which 12 are common"
    )
    result = family_result(Pair("tiny-llava", "tiny"), comparison, stored_of(whole))
    row = explain_verdict(result).rows[-1]
    assert (row.verdict, row.sentence) == ("not asked", f"{reason[:1].upper()}{reason[1:]}.")
    assert note_lines(result) == [f"anisotropy-adjusted inter-modal similarity: not compared, {reason}"]


def test_cosines_between_samples_change_no_number_of_a_profile(whole: Profile) -> None:
    assert set(CURVES) <= set(whole.arrays)
    assert have_same_numbers(whole, dataclasses.replace(whole, between_samples=None))
