"""Attention of the last prompt token (figure 4), by norms and by weights, compared with the stored baseline."""

import pytest

from harness.baselines.store import Baseline
from harness.checks import check_equivalent, check_reproduces
from harness.profile.profile import Profile
from harness.run.judge import Judge

pytestmark = pytest.mark.regression


def test_reproduces(profile: Profile, baseline: Baseline, judge: Judge) -> None:
    """The attention shares of every sample equal the baseline in every layer."""
    check_reproduces(profile, baseline, judge.regression(profile, baseline, "attention"))


def test_equivalent(profile: Profile, baseline: Baseline, judge: Judge, strict_evidence: bool) -> None:
    """The mean attention shares equal the baseline within their margins, in level and in shape."""
    check_equivalent(profile, baseline, judge.regression(profile, baseline, "attention"), strict=strict_evidence)
