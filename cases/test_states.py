"""Norms, steps and visual integration of the states over depth compared with the stored baseline."""

import pytest

from harness.baselines.store import Baseline
from harness.checks import check_equivalent, check_reproduces
from harness.profile.profile import Profile
from harness.run.judge import Judge

pytestmark = pytest.mark.regression


def test_reproduces(profile: Profile, baseline: Baseline, judge: Judge) -> None:
    """Norm ratio, step cosines and visual integration of every sample equal the baseline at every position."""
    check_reproduces(profile, baseline, judge.regression(profile, baseline, "states"))


def test_equivalent(profile: Profile, baseline: Baseline, judge: Judge, strict_evidence: bool) -> None:
    """The mean curves of the states equal the baseline within their margins, in level and in shape."""
    check_equivalent(profile, baseline, judge.regression(profile, baseline, "states"), strict=strict_evidence)
