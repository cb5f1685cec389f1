"""A pair under a second instruction of the same meaning: the shift of its boundaries, and the verdicts on claims."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from harness.analysis.turning_points import BoundaryInterval
from harness.baselines.reference import reference_from_profile
from harness.data.sample import Dataset
from harness.judgement.known_differences import measured_reason
from harness.judgement.phases import judge_claims, phase_reading
from harness.judgement.regression import compare_boundaries
from harness.judgement.results import Result, boundary_result
from harness.profile.pair import Pair
from harness.profile.profile import ONE_PER_SAMPLE, Profile


class RephrasedClaim(NamedTuple):
    """The verdict on a claim under the dataset's instruction and under the second one, with the latter's reason."""

    original: str
    verdict: str
    reason: str

    @property
    def unchanged(self) -> bool:
        """True if both verdicts are the same."""
        return self.original == self.verdict


@dataclass(frozen=True, slots=True)
class Rephrasing:
    """The results of a pair under a second instruction, compared with those under the dataset's instruction.

    `turning_points` are those of the second measurement with their intervals. `boundaries` judges the shift of each
    boundary; its effects are layers under the second instruction minus layers under the first. `claims` holds the
    verdicts by claim.
    """

    instruction: str
    turning_points: tuple[BoundaryInterval, ...]
    boundaries: Result
    claims: Mapping[str, RephrasedClaim]


def no_rephrasing_reason(dataset: Dataset, profile: Profile) -> str:
    """Return the reason why a measured pair has no second instruction; empty if it has one."""
    if profile.declared.get("instruction") == ONE_PER_SAMPLE:
        return f"each sample of {dataset.name} has an instruction of its own"
    if not dataset.rephrasing:
        return f"{dataset.name} declares no second instruction: set `rephrasing` of its Dataset"
    return ""


def judge_rephrasing(profile: Profile, rephrased: Profile) -> Rephrasing:
    """Compare the boundaries and claims of a pair under two instructions; neither profile changes.

    Args:
        profile: the pair under the dataset's instruction. The margins of the boundaries are its own.
        rephrased: the same samples under an instruction of the same meaning.

    Example:
        >>> from pathlib import Path
        >>> from harness.baselines.store import read_baseline
        >>> from harness.judgement.rephrasing import judge_rephrasing
        >>> profile = read_baseline(Path("baselines/scenes-llava/scenes.json")).profile
        >>> # rephrased = harness.measure("scenes-llava", "scenes", instruction="Give a description of the picture.")
        >>> judge_rephrasing(profile, rephrased=profile).boundaries.verdict
        'reproduces'
    """
    original, reading = judge_claims(phase_reading(profile)), phase_reading(rephrased)
    return Rephrasing(
        instruction=str(rephrased.declared.get("instruction", "")),
        turning_points=tuple(reading.boundaries.turning_points),
        boundaries=boundary_result(
            Pair(profile.model, profile.dataset), compare_boundaries(rephrased, reference_from_profile(profile))
        ),
        claims={
            name: RephrasedClaim(str(original[name].verdict), str(claim.verdict), measured_reason(claim))
            for name, claim in judge_claims(reading).items()
        },
    )
