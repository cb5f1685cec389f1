"""The paper's main claim: inter-modal similarity goes through four phases over depth."""

import pytest

from harness.checks import check_claim
from harness.profile.profile import Profile
from harness.run.judge import Judge


@pytest.mark.replication(claim="four-phases")
def test_four_phases(profile: Profile, judge: Judge, strict_evidence: bool) -> None:
    """Exactly four alternating segments are confirmed; the first rises, and none has a reversal."""
    check_claim(profile, judge.claim(profile, "four-phases"), strict=strict_evidence)
