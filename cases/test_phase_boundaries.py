"""The layers that separate the phases (the paper's figure 2) against the stored baseline."""

import pytest

from harness.baselines.store import Baseline
from harness.checks import check_boundaries
from harness.profile.profile import Profile
from harness.run.judge import Judge


@pytest.mark.regression
def test_boundaries_stay(profile: Profile, baseline: Baseline, judge: Judge, strict_evidence: bool) -> None:
    """Turning points and half-height layers are where the baseline has them."""
    check_boundaries(profile, baseline, judge.boundaries(profile, baseline), strict=strict_evidence)
