"""What holds within each phase (the paper's monotone intervals) against the stored baseline."""

import pytest

from harness.baselines.store import Baseline
from harness.checks import check_intervals
from harness.profile.profile import Profile
from harness.run.judge import Judge


@pytest.mark.regression
def test_phases_stay(profile: Profile, baseline: Baseline, judge: Judge, strict_evidence: bool) -> None:
    """Over the baseline's layers each phase is as present, and as monotone, as it was."""
    check_intervals(profile, baseline, judge.intervals(profile, baseline), strict=strict_evidence)
