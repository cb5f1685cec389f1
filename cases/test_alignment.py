"""Phase I, alignment: in very early layers inter-modal similarity emerges."""

import pytest

from harness.checks import check_claim
from harness.profile.profile import Profile
from harness.run.judge import Judge


@pytest.mark.replication(claim="alignment")
def test_alignment(profile: Profile, judge: Judge, strict_evidence: bool) -> None:
    """Inter-modal similarity rises in phase I, which ends in the first quarter of the depth."""
    check_claim(profile, judge.claim(profile, "alignment"), strict=strict_evidence)
