"""Image flow: attention knockout in windows of layers, judged by phase and compared with the stored baseline."""

import pytest

from harness.baselines.store import Baseline
from harness.checks import check_claim, check_equivalent, check_reproduces
from harness.profile.profile import Profile
from harness.run.judge import Judge

pytestmark = [pytest.mark.causal, pytest.mark.usefixtures("knockout")]


@pytest.mark.replication(claim="fusion-flows")
def test_fusion_flows(profile: Profile, judge: Judge, strict_evidence: bool) -> None:
    """Blocking the image costs more per layer over phase III than over every other phase."""
    check_claim(profile, judge.claim(profile, "fusion-flows"), strict=strict_evidence)


@pytest.mark.replication(claim="alignment-flows")
def test_alignment_flows(profile: Profile, judge: Judge, strict_evidence: bool) -> None:
    """Over phase I more than chance flows from the image to the instruction's tokens."""
    check_claim(profile, judge.claim(profile, "alignment-flows"), strict=strict_evidence)


@pytest.mark.replication(claim="output-is-local")
def test_output_is_local(profile: Profile, judge: Judge, strict_evidence: bool) -> None:
    """Blocking the image over phase IV costs less than 2 % of what the image is worth."""
    check_claim(profile, judge.claim(profile, "output-is-local"), strict=strict_evidence)


@pytest.mark.regression
def test_reproduces(profile: Profile, baseline: Baseline, judge: Judge) -> None:
    """The losses of every sample equal the baseline in every window of layers."""
    check_reproduces(profile, baseline, judge.regression(profile, baseline, "knockout"))


@pytest.mark.regression
def test_equivalent(profile: Profile, baseline: Baseline, judge: Judge, strict_evidence: bool) -> None:
    """The mean losses equal the baseline within their margins, in level and in shape."""
    check_equivalent(profile, baseline, judge.regression(profile, baseline, "knockout"), strict=strict_evidence)
