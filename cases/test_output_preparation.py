"""Phase IV, output preparation: hidden states turn towards the unembedding."""

import pytest

from harness.checks import check_claim
from harness.profile.profile import Profile
from harness.run.judge import Judge


@pytest.mark.replication(claim="output-preparation")
def test_output_preparation(profile: Profile, judge: Judge, strict_evidence: bool) -> None:
    """Over phase IV all similarities fall, in the last quarter, where LogitLens recall is highest."""
    check_claim(profile, judge.claim(profile, "output-preparation"), strict=strict_evidence)
