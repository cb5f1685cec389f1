"""Checks that a profile reproduces a baseline, or does not, measure by measure."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.analysis.mean_difference import Verdict
from harness.baselines.store import Baseline
from harness.checks import check_reproduces
from harness.judgement.regression import compare, compare_boundaries, compare_intervals
from harness.profile.measures import FAMILIES
from harness.profile.profile import Profile
from harness.tests.support.synthetic_profiles import join_lines

MODEL = "scenes-llava"


def failure_message(check: Callable[[], None]) -> str:
    """What an assertion complains about; nothing where it holds or where the evidence does not decide."""
    try:
        check()
    except AssertionError as error:
        return join_lines(error)
    except pytest.xfail.Exception:
        return ""
    except pytest.skip.Exception as skipped:
        pytest.fail(f"a question was not asked: {skipped.msg}")
    return ""


def failure_messages(profile: Profile, stored: Baseline) -> list[str]:
    """Return the complaints of every family that its numbers are no longer the baseline's."""
    checks = [
        lambda family=family: check_reproduces(profile, stored, compare(profile, stored, family))
        for family in FAMILIES.values()
    ]
    return [message for message in map(failure_message, checks) if message]


def all_verdicts(profile: Profile, stored: Baseline) -> dict[str, Verdict]:
    """Return the verdict on every measure, on the boundaries and on what holds within the phases."""
    verdicts = {
        finding.measure.name: finding.agreement.verdict
        for family in FAMILIES.values()
        for finding in compare(profile, stored, family).findings
    }
    return verdicts | {
        "boundaries": compare_boundaries(profile, stored).verdict,
        "phases": compare_intervals(profile, stored).verdict,
    }


def assert_reproduces(profile: Profile, stored: Baseline) -> None:
    """Every verdict is `reproduces`; the adjusted curve of fewer samples is another number and not compared."""
    assert not failure_messages(profile, stored)
    verdicts = all_verdicts(profile, stored)
    assert ("inter_adjusted" in verdicts) == (profile.n >= stored.profile.n)
    assert set(verdicts.values()) == {Verdict.REPRODUCES}, verdicts
