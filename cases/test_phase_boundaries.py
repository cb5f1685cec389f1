"""The phase boundaries (the paper's figure 2) compared with the stored baseline."""

import pytest

from harness.baselines.store import Baseline
from harness.checks import check_boundaries
from harness.profile.profile import Profile
from harness.run.judge import Judge


@pytest.mark.regression
def test_boundaries_stay(profile: Profile, baseline: Baseline, judge: Judge, strict_evidence: bool) -> None:
    """Turning points and half-height layers equal those of the baseline within their margins."""
    check_boundaries(profile, baseline, judge.boundaries(profile, baseline), strict=strict_evidence)
