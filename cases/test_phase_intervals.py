"""Presence and monotonicity of each phase (the paper's monotone intervals) compared with the stored baseline."""

import pytest

from harness.baselines.store import Baseline
from harness.checks import check_intervals
from harness.profile.profile import Profile
from harness.run.judge import Judge


@pytest.mark.regression
def test_phases_stay(profile: Profile, baseline: Baseline, judge: Judge, strict_evidence: bool) -> None:
    """Over its layers in the baseline each phase is still present and monotone."""
    check_intervals(profile, baseline, judge.intervals(profile, baseline), strict=strict_evidence)
