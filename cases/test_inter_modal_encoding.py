"""Phase III, inter-modal encoding: the modalities approach each other."""

import pytest

from harness.checks import check_claim
from harness.profile.profile import Profile
from harness.run.judge import Judge


@pytest.mark.replication(claim="inter-modal")
def test_inter_modal_encoding(profile: Profile, judge: Judge, strict_evidence: bool) -> None:
    """Inter-modal similarity rises over phase III."""
    check_claim(profile, judge.claim(profile, "inter-modal"), strict=strict_evidence)
