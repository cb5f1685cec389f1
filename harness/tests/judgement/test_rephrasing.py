"""The comparison of a pair under two instructions: shifts of boundaries, verdicts on claims, and refusals."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from harness.data.datasets import DATASETS, find_dataset
from harness.data.sample import Dataset, Source
from harness.judgement.phases import phases_of
from harness.judgement.rephrasing import judge_rephrasing, no_rephrasing_reason
from harness.profile.profile import ONE_PER_SAMPLE
from harness.tests.support.rephrased import SAME, SECOND, rephrased_profile
from harness.tests.support.synthetic_profiles import synthetic_profile

PROFILE = synthetic_profile()


def test_noise_within_the_margins_leaves_boundaries_and_claims() -> None:
    before = phases_of(PROFILE)
    rephrasing = judge_rephrasing(PROFILE, rephrased_profile(PROFILE))
    assert rephrasing.instruction == SECOND
    assert rephrasing.boundaries.verdict == "equivalent"
    assert [part.title for part in rephrasing.boundaries.parts][:3] == [f"turning point {j}" for j in (1, 2, 3)]
    assert all(part.paired for part in rephrasing.boundaries.parts)
    assert [point.estimate for point in rephrasing.turning_points] == [2.0, 5.0, 10.0]
    assert {name: claim.original for name, claim in rephrasing.claims.items()} == {
        name: claim["verdict"] for name, claim in before["claims"].items()
    }
    assert all(claim.unchanged for claim in rephrasing.claims.values())
    assert phases_of(PROFILE) == before


def test_a_moved_boundary_differs_and_its_claims_are_compared() -> None:
    later = np.interp(np.arange(PROFILE.depth + 1), [0, 4, 7, 10, 12], [0.1, 0.5, 0.2, 0.8, 0.3])
    noise = 0.004 * np.random.default_rng(1).standard_normal(PROFILE["inter"].shape)
    rephrasing = judge_rephrasing(PROFILE, rephrased_profile(PROFILE, inter=(later + noise).astype(np.float32)))
    assert rephrasing.boundaries.verdict == "differs"
    moved = {part.title for part in rephrasing.boundaries.parts if part.verdict == "differs"}
    assert {"turning point 1", "turning point 2"} <= moved
    assert "turning point 3" not in moved
    alignment = rephrasing.claims["alignment"]
    assert (alignment.original, alignment.verdict, alignment.unchanged) == ("holds", "fails", False)
    assert alignment.reason.startswith("I ends at layer 4")


def test_the_same_prompts_reproduce() -> None:
    assert judge_rephrasing(PROFILE, PROFILE).boundaries.verdict == "reproduces"


@pytest.mark.parametrize(
    ("dataset", "instruction", "reason"),
    [
        (SAME, "describe the image please", ""),
        (SAME, ONE_PER_SAMPLE, "each sample of tiny-same has an instruction of its own"),
        (
            Dataset("mine", "", SAME.draw),
            "what is it?",
            "mine declares no second instruction: set `rephrasing` of its Dataset",
        ),
    ],
)
def test_a_pair_without_second_instruction_has_a_reason(dataset: Dataset, instruction: str, reason: str) -> None:
    profile = dataclasses.replace(PROFILE, declared={**PROFILE.declared, "instruction": instruction})
    assert no_rephrasing_reason(dataset, profile) == reason


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_bundled_data_with_one_instruction_declare_another(name: str) -> None:
    dataset = find_dataset(name)
    assert bool(dataset.rephrasing) is (not dataset.regression_only)
    if not dataset.variable:
        instructions = {sample.instruction for sample in dataset.draw(4, 0, Source())}
        assert (len(instructions) == 1) is bool(dataset.rephrasing)
        assert dataset.rephrasing not in instructions
