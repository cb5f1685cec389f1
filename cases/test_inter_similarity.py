"""Inter-modal similarity over depth (the paper's figure 1) compared with the stored baseline."""

import pytest

from harness.baselines.store import Baseline
from harness.checks import check_equivalent, check_reproduces
from harness.profile.profile import Profile
from harness.run.judge import Judge

pytestmark = pytest.mark.regression


def test_reproduces(profile: Profile, baseline: Baseline, judge: Judge) -> None:
    """The inter-modal similarity of every sample equals the baseline at every residual point."""
    check_reproduces(profile, baseline, judge.regression(profile, baseline, "inter"))


def test_equivalent(profile: Profile, baseline: Baseline, judge: Judge, strict_evidence: bool) -> None:
    """The mean inter-modal curve equals the baseline within its margins, in level and in shape."""
    check_equivalent(profile, baseline, judge.regression(profile, baseline, "inter"), strict=strict_evidence)
