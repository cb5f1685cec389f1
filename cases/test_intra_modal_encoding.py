"""Phase II, intra-modal encoding: similarity rises within each modality and falls between the two."""

import pytest

from harness.checks import check_claim
from harness.profile.profile import Profile
from harness.run.judge import Judge


@pytest.mark.replication(claim="intra-modal")
def test_intra_modal_encoding(profile: Profile, judge: Judge, strict_evidence: bool) -> None:
    """Over phase II inter-modal similarity falls while similarity within image and within text rises."""
    check_claim(profile, judge.claim(profile, "intra-modal"), strict=strict_evidence)
