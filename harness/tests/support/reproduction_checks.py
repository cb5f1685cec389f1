"""Checks of each measure against a baseline."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.analysis.mean_difference import Verdict
from harness.baselines.store import Baseline
from harness.checks import check_reproduces
from harness.judgement.regression import compare, compare_boundaries, compare_intervals
from harness.profile.measures import FAMILIES, KNOCKOUT_FAMILY
from harness.profile.profile import Profile
from harness.tests.support.synthetic_profiles import join_lines

MODEL = "scenes-llava"
# The runs of these tests measure no knockout.
MEASURED = tuple(family for name, family in FAMILIES.items() if name != KNOCKOUT_FAMILY)


def failure_message(check: Callable[[], None]) -> str:
    """Return the message of a failed check, or an empty string if it passes or is inconclusive."""
    try:
        check()
    except AssertionError as error:
        return join_lines(error)
    except pytest.xfail.Exception:
        return ""
    except pytest.skip.Exception as skipped:
        pytest.fail(f"a check was skipped: {skipped.msg}")
    return ""


def failure_messages(profile: Profile, baseline: Baseline) -> list[str]:
    """Return the failure messages of all families that do not reproduce the baseline."""
    checks = [
        lambda family=family: check_reproduces(profile, baseline, compare(profile, baseline, family))
        for family in MEASURED
    ]
    return [message for message in map(failure_message, checks) if message]


def all_verdicts(profile: Profile, baseline: Baseline) -> dict[str, Verdict]:
    """Return the verdict on every measure, on the boundaries and on the intervals within the phases."""
    verdicts = {
        finding.measure.name: finding.agreement.verdict
        for family in MEASURED
        for finding in compare(profile, baseline, family).findings
    }
    return verdicts | {
        "boundaries": compare_boundaries(profile, baseline).verdict,
        "phases": compare_intervals(profile, baseline).verdict,
    }


def assert_reproduces(profile: Profile, baseline: Baseline) -> None:
    """Assert that every verdict is `reproduces`. With fewer samples, the adjusted curve is not compared."""
    assert not failure_messages(profile, baseline)
    verdicts = all_verdicts(profile, baseline)
    assert ("inter_adjusted" in verdicts) == (profile.n >= baseline.profile.n)
    assert set(verdicts.values()) == {Verdict.REPRODUCES}, verdicts
