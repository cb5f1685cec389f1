"""Similarity within the image, text and instruction tokens (figure 3) against the stored baseline."""

import pytest

from harness.baselines.store import Baseline
from harness.checks import check_equivalent, check_reproduces
from harness.profile.profile import Profile
from harness.run.judge import Judge

pytestmark = pytest.mark.regression


def test_reproduces(profile: Profile, baseline: Baseline, judge: Judge) -> None:
    """Every sample's similarity within each token group is the baseline's, at every residual point."""
    check_reproduces(profile, baseline, judge.regression(profile, baseline, "intra"))


def test_equivalent(profile: Profile, baseline: Baseline, judge: Judge, strict_evidence: bool) -> None:
    """The mean curves within each token group are the baseline's within their margins, in level and in shape."""
    check_equivalent(profile, baseline, judge.regression(profile, baseline, "intra"), strict=strict_evidence)
