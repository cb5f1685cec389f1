"""What the last prompt token attends to (figure 4), by norms and by weights, against the stored baseline."""

import pytest

from harness.baselines.store import Baseline
from harness.checks import check_equivalent, check_reproduces
from harness.profile.profile import Profile
from harness.run.judge import Judge

pytestmark = pytest.mark.regression


def test_reproduces(profile: Profile, baseline: Baseline, judge: Judge) -> None:
    """Every sample's attention shares are the baseline's, in every layer."""
    check_reproduces(profile, baseline, judge.regression(profile, baseline, "attention"))


def test_equivalent(profile: Profile, baseline: Baseline, judge: Judge, strict_evidence: bool) -> None:
    """The mean attention shares are the baseline's within their margins, in level and in shape."""
    check_equivalent(profile, baseline, judge.regression(profile, baseline, "attention"), strict=strict_evidence)
