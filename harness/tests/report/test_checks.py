"""Each check passes for equal profiles; its failure message names change, position, size and command."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.timing import timing_ratio
from harness.baselines.store import Baseline, read_baseline, write_baseline
from harness.baselines.stored_arrays import pack_samples
from harness.baselines.stored_files import BaselineError, read_json, write_files
from harness.checks import (
    check_boundaries,
    check_claim,
    check_equivalent,
    check_intervals,
    check_ratio,
    check_reproduces,
)
from harness.interface import PYTEST, use
from harness.judgement.phases import judge_claims, phase_reading, phases_of
from harness.judgement.regression import compare, compare_boundaries, compare_intervals
from harness.profile.measures import FAMILIES, layer_ranges
from harness.profile.profile import Profile
from harness.tests.support.synthetic_profiles import ENVIRONMENT, L, N, join_lines, replace_arrays, synthetic_profile


@pytest.fixture(autouse=True)
def in_pytest() -> Iterator[None]:
    previous = use(PYTEST)
    yield
    use(previous)


@pytest.fixture(scope="module")
def made() -> Profile:
    return synthetic_profile()


@pytest.fixture
def stored(made: Profile, tmp_path: Path) -> Baseline:
    return read_baseline(write_baseline(tmp_path, made, {}, phases_of(made)))


@pytest.mark.parametrize("missing", ["inter_instruction", "norm_self", "hits", "words"])
def test_a_baseline_without_a_judged_measure_is_damaged(made: Profile, tmp_path: Path, missing: str) -> None:
    path = write_baseline(tmp_path, made, {}, phases_of(made))
    fewer = {name: array for name, array in made.arrays.items() if name != missing}
    write_files(path, read_json(path), pack_samples(dataclasses.replace(made, arrays=fewer)))
    with pytest.raises(BaselineError, match=f"is damaged .*'{missing}'.*record it again with --phase-update-new"):
        read_baseline(path)


def test_a_stored_profile_is_read_back_unchanged(made: Profile, stored: Baseline) -> None:
    assert stored.profile.sample_ids == made.sample_ids
    assert stored.profile.environment == made.environment
    for name, array in made.arrays.items():
        assert np.array_equal(stored.profile.arrays[name], array), name
    assert stored.margins["inter"] == pytest.approx(0.05 * np.ptp(made["inter"].mean(0)), rel=1e-5)
    table = read_json(stored.path)["margins"]
    assert set(stored.margins) == {name for name, margin in table.items() if margin["reason"]}


def test_the_same_profile_passes_every_check(made: Profile, stored: Baseline) -> None:
    for family in FAMILIES.values():
        comparison = compare(made, stored, family)
        assert comparison.verdict == "reproduces"
        check_reproduces(made, stored, comparison)
        check_equivalent(made, stored, comparison)
    check_boundaries(made, stored, compare_boundaries(made, stored))
    intervals = compare_intervals(made, stored)
    assert intervals.verdict == "reproduces"
    check_intervals(made, stored, intervals)


def test_a_small_change_is_equivalent_and_does_not_reproduce(made: Profile, stored: Baseline) -> None:
    measured = replace_arrays(
        made, inter=made["inter"] + np.where(np.arange(L + 1) == 7, 0.005, 0.0).astype(np.float32)
    )
    comparison = compare(measured, stored, FAMILIES["inter"])
    assert comparison.verdict == "equivalent"
    check_equivalent(measured, stored, comparison)
    with pytest.raises(AssertionError, match=r"(?s) changed\s+at\s+residual\s+point\s+7:\n.*EQUIVALENT\n  64 of 64"):
        check_reproduces(measured, stored, comparison)


def test_a_large_change_names_layers_difference_interval_margin_file_and_command(
    made: Profile, stored: Baseline
) -> None:
    shift = np.where((np.arange(L + 1) >= 6) & (np.arange(L + 1) <= 8), 0.09, 0.0).astype(np.float32)
    measured = dataclasses.replace(replace_arrays(made, inter=made["inter"] + shift), weights="fedcba9876543210")
    comparison = compare(measured, stored, FAMILIES["inter"])
    with pytest.raises(AssertionError) as caught:
        check_equivalent(measured, stored, comparison)
    message = join_lines(caught.value)
    assert message.startswith(
        "inter-modal similarity of made on curves differs at residual points 6-8: mean difference"
    )
    assert "+0.09" in message
    assert "interval" in message
    assert "margin 0.03" in message
    assert "n = 64 paired -> DIFFERS" in message
    assert "weights: 0123456789abcdef -> fedcba9876543210" in message
    assert f"baseline {stored.path} (recorded with torch 2.15.0, transformers 5.23.0, cpu" in message
    assert message.endswith("intended? the same command with --phase-update --phase-reason TEXT")


def test_layers_of_attention_are_counted_from_one(made: Profile, stored: Baseline) -> None:
    share = made["norm_image"] + np.where(np.arange(L) == 4, 0.2, 0.0).astype(np.float32)
    measured = replace_arrays(made, norm_image=share)
    with pytest.raises(AssertionError, match=r"(?s)norm-based attention of the last token on image .* at layer 5"):
        check_equivalent(measured, stored, compare(measured, stored, FAMILIES["attention"]))


def test_changed_inputs_fail_reproduction(made: Profile, stored: Baseline) -> None:
    pixels = ("other", *made.pixel_hashes[1:])
    measured = dataclasses.replace(made, pixel_hashes=pixels)
    comparison = compare(measured, stored, FAMILIES["intra"])
    with pytest.raises(
        AssertionError, match=rf"(?s)^the inputs changed: of {made.n} samples .*0\s+have other token ids and 1 other"
    ):
        check_reproduces(measured, stored, comparison)


def test_another_dtype_is_not_compared_sample_by_sample(made: Profile, stored: Baseline) -> None:
    measured = dataclasses.replace(made, environment=dataclasses.replace(ENVIRONMENT, dtype="bfloat16"))
    comparison = compare(measured, stored, FAMILIES["inter"])
    with pytest.raises(pytest.skip.Exception, match=r"bfloat16 against\s+the baseline's float32"):
        check_reproduces(measured, stored, comparison)
    check_equivalent(measured, stored, comparison)


def test_shifted_boundaries_are_named(made: Profile, stored: Baseline) -> None:
    later = np.interp(np.arange(L + 1), [0, 4, 7, 11, 12], [0.1, 0.5, 0.2, 0.8, 0.3]).astype(np.float32)
    measured = replace_arrays(made, inter=made["inter"] - made["inter"].mean(0) + later)
    with pytest.raises(
        AssertionError, match=r"(?s)turning point 1 shifted from layer 2 to 4: \+2\n.*margin 1, n = 64 paired"
    ):
        check_boundaries(measured, stored, compare_boundaries(measured, stored))


def flattened(made: Profile, bottom: float) -> Profile:
    """Return the same with phase II, from 0.5 at point 2 down to 0.2 at point 5, ending at `bottom`."""
    wave = np.interp(np.arange(L + 1), [0, 2, 5, 10, 12], [0.1, 0.5, bottom, 0.8, 0.3]).astype(np.float32)
    return replace_arrays(made, inter=made["inter"] - made["inter"].mean(0) + wave)


def test_a_phase_that_vanished_is_named(made: Profile, stored: Baseline) -> None:
    measured = flattened(made, 0.49)
    with pytest.raises(AssertionError) as caught:
        check_intervals(measured, stored, compare_intervals(measured, stored))
    message = join_lines(caught.value)
    assert message.startswith("phases of made on curves: DIFFERS phase II")
    assert "phase II, a fall of inter-modal similarity over residual points 2-5 of the baseline, was present" in message
    assert "and is absent: fall 0.01 from point 2 to 5 (interval " in message
    assert "in the baseline 0.3, prominence 0.07" in message
    assert "change -0.29 (99.991% interval " in message
    assert "n = 64 paired" in message
    assert f"baseline {stored.path} (recorded with" in message
    assert message.endswith("intended? the same command with --phase-update --phase-reason TEXT")
    assert "phase III" not in message


def test_a_phase_that_is_no_longer_confirmed_is_an_expected_failure(made: Profile, stored: Baseline) -> None:
    measured = flattened(made, 0.43)
    agreement = compare_intervals(measured, stored)
    with pytest.raises(
        pytest.xfail.Exception, match=r"(?s)inconclusive.*phase II, .* no\s+longer\s+confirmed\s+as\s+present"
    ):
        check_intervals(measured, stored, agreement)
    with pytest.raises(AssertionError, match="INCONCLUSIVE"):
        check_intervals(measured, stored, agreement, strict=True)


def test_a_reversal_that_appeared_is_named(made: Profile, stored: Baseline) -> None:
    measured = replace_arrays(made, inter=made["inter"] - np.where(np.arange(L + 1) == 8, 0.3, 0.0).astype(np.float32))
    with pytest.raises(
        AssertionError, match=r"(?s)points 5-10\s.* was\s+monotone and is not monotone:\n    largest reversal 0"
    ):
        check_intervals(measured, stored, compare_intervals(measured, stored))


def test_inconclusive_is_an_expected_failure_or_with_strict_evidence_a_failure(made: Profile, stored: Baseline) -> None:
    rng = np.random.default_rng(5)
    noise = (0.12 * rng.standard_normal((N, 1)) * np.ones(L + 1)).astype(np.float32)
    measured = replace_arrays(made, inter=made["inter"] + noise)
    comparison = compare(measured, stored, FAMILIES["inter"])
    assert comparison.verdict == "inconclusive"
    with pytest.raises(pytest.xfail.Exception, match="inconclusive, needs about n ="):
        check_equivalent(measured, stored, comparison)
    with pytest.raises(AssertionError, match="INCONCLUSIVE"):
        check_equivalent(measured, stored, comparison, strict=True)


def test_a_claim_that_fails_names_its_parts(made: Profile) -> None:
    claims = judge_claims(phase_reading(made))
    check_claim(made, claims["four-phases"])
    check_claim(made, claims["inter-modal"])
    flat = replace_arrays(made, text=np.flip(made["text"], axis=1).copy())
    with pytest.raises(AssertionError, match=r"intra-modal of made on curves: FAILS\n"):
        check_claim(flat, judge_claims(phase_reading(flat))["intra-modal"])


def test_a_slower_probe_fails_and_noise_does_not() -> None:
    rng = np.random.default_rng(0)
    timing = timing_ratio(np.log(1.5) + 0.02 * rng.standard_normal(31))
    check_ratio("made-curves", timing, 1.4, "baseline b")
    with pytest.raises(AssertionError, match=r"(?s)made-curves became slower:\n  1\.\d+ x plain .*baseline\s+1\.200 x"):
        check_ratio("made-curves", timing, 1.2, "baseline b")


@given(st.sets(st.integers(0, 40)))
def test_layer_ranges_name_every_layer_once(layers: set[int]) -> None:
    text = layer_ranges(layers)
    named: list[int] = []
    for run in filter(None, text.split(", ")):
        first, _, last = run.partition("-")
        named += range(int(first), int(last or first) + 1)
    assert named == sorted(layers)
