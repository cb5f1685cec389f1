"""An update adds measures to a baseline without a reason, and loses none because a control was not measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.baselines.store import read_baseline, write_baseline
from harness.judgement.phases import phases_of
from harness.profile.pair import Pair
from harness.profile.profile import Profile
from harness.tests.support.judged import make_session
from harness.tests.support.synthetic_profiles import replace_arrays, synthetic_profile

PAIR = Pair("made", "curves")
ADDED = {"norm_ratio", "visual_integration"}


def without(profile: Profile, names: set[str]) -> Profile:
    return replace(profile, arrays={name: array for name, array in profile.arrays.items() if name not in names})


def accepted_changes(root: Path) -> list[str]:
    """Return the reasons in the history of the baseline."""
    (path,) = root.glob("made/*.json")
    return [entry.reason for entry in read_baseline(path).history]


def updated(
    root: Path, stored: Profile, measured: Profile, *, summary: bool = False, reason: str | None = None
) -> list[str]:
    """Store a baseline, update it, without a reason by default, and return how it was written."""
    write_baseline(root, stored, {}, phases_of(stored), summary=summary)
    session = make_session(root, update=True, reason=reason)
    session.stored.baseline(PAIR, measured)
    return list(session.results.written.values())


@pytest.mark.parametrize("summary", [False, True])
def test_further_measures_are_added_without_a_reason(tmp_path: Path, summary: bool) -> None:
    profile = synthetic_profile()
    assert updated(tmp_path, without(profile, ADDED), profile, summary=summary) == ["changed"]
    assert accepted_changes(tmp_path) == []
    (path,) = tmp_path.glob("made/*.json")
    assert set(read_baseline(path).profile.measured(sorted(ADDED))) == ADDED


@pytest.mark.parametrize("summary", [False, True])
def test_other_numbers_need_a_reason_even_if_measures_are_added(tmp_path: Path, summary: bool) -> None:
    profile = synthetic_profile()
    changed = replace_arrays(profile, inter=profile["inter"] + 0.1)
    assert updated(tmp_path, without(profile, ADDED), changed, summary=summary, reason="other weights") == ["changed"]
    assert accepted_changes(tmp_path) == ["other weights"]


@pytest.mark.parametrize("summary", [False, True])
def test_a_measure_whose_control_was_not_measured_stays_in_the_baseline(tmp_path: Path, summary: bool) -> None:
    profile = synthetic_profile()
    assert updated(tmp_path, profile, without(profile, {"visual_integration"}), summary=summary) == []


def test_a_measure_that_was_lost_needs_a_reason(tmp_path: Path) -> None:
    profile = synthetic_profile()
    assert updated(tmp_path, profile, without(profile, {"norm_ratio"}), reason="not needed") == ["changed"]
    assert accepted_changes(tmp_path) == ["not needed"]
