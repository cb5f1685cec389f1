"""Similarity within the image, text and instruction tokens (figure 3) compared with the stored baseline."""

import pytest

from harness.baselines.store import Baseline
from harness.checks import check_equivalent, check_reproduces
from harness.profile.profile import Profile
from harness.run.judge import Judge

pytestmark = pytest.mark.regression


def test_reproduces(profile: Profile, baseline: Baseline, judge: Judge) -> None:
    """The similarity within each token group equals the baseline at every residual point, in every sample."""
    check_reproduces(profile, baseline, judge.regression(profile, baseline, "intra"))


def test_equivalent(profile: Profile, baseline: Baseline, judge: Judge, strict_evidence: bool) -> None:
    """The mean curves within each token group equal the baseline within their margins, in level and in shape."""
    check_equivalent(profile, baseline, judge.regression(profile, baseline, "intra"), strict=strict_evidence)
