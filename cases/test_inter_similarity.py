"""Inter-modal similarity over depth (the paper's figure 1) against the stored baseline."""

import pytest

from harness.baselines.store import Baseline
from harness.checks import check_equivalent, check_reproduces
from harness.profile.profile import Profile
from harness.run.judge import Judge

pytestmark = pytest.mark.regression


def test_reproduces(profile: Profile, baseline: Baseline, judge: Judge) -> None:
    """Every sample's inter-modal similarity is the baseline's, at every residual point."""
    check_reproduces(profile, baseline, judge.regression(profile, baseline, "inter"))


def test_equivalent(profile: Profile, baseline: Baseline, judge: Judge, strict_evidence: bool) -> None:
    """The mean inter-modal curve is the baseline's within its margins, in level and in shape."""
    check_equivalent(profile, baseline, judge.regression(profile, baseline, "inter"), strict=strict_evidence)
