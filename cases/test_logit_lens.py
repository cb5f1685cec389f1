"""Words that LogitLens decodes (figure 5) compared with the stored baseline."""

import pytest

from harness.baselines.store import Baseline
from harness.checks import check_equivalent, check_reproduces
from harness.profile.profile import Profile
from harness.run.judge import Judge

pytestmark = pytest.mark.regression


def test_reproduces(profile: Profile, baseline: Baseline, judge: Judge) -> None:
    """The same words are decoded in 99 % of the samples, at every residual point."""
    check_reproduces(profile, baseline, judge.regression(profile, baseline, "lens"))


def test_equivalent(profile: Profile, baseline: Baseline, judge: Judge, strict_evidence: bool) -> None:
    """Recall and exit agreement equal the baseline within 0.05, and within 0.02 at the last residual point."""
    check_equivalent(profile, baseline, judge.regression(profile, baseline, "lens"), strict=strict_evidence)
