"""A baseline with more samples of a control than the run is neither changed nor rewritten."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.baselines.store import find_baseline, read_baseline, write_baseline
from harness.baselines.stored_files import read_json, write_files
from harness.judgement.phases import phases_of
from harness.profile.measures import CURVES
from harness.profile.pair import Pair
from harness.profile.profile import Profile
from harness.tests.support.judged import make_session
from harness.tests.support.synthetic_profiles import synthetic_profile

PAIR = Pair("made", "curves")


def with_noise(samples: int, seed: int = 1) -> Profile:
    """Return the synthetic profile with a noise control on its first samples."""
    profile, noise = synthetic_profile(), synthetic_profile(seed).arrays
    curves = {name: noise[name][:samples] for name in CURVES}
    # Adjusted over fewer samples.
    curves["inter_adjusted"] = curves["inter_adjusted"] + np.float32(0.001 * (64 - samples))
    return replace(profile, controls={"noise": curves}, control_samples={"noise": profile.sample_ids[:samples]})


def written(root: Path, stored: Profile, measured: Profile, *, summary: bool = False) -> list[str]:
    """Store a baseline, update it with another profile of the pair, and return how it was written."""
    write_baseline(root, stored, {}, phases_of(stored), summary=summary)
    return updated(root, measured)


def updated(root: Path, measured: Profile) -> list[str]:
    session = make_session(root, update=True, reason="measured again")
    session.stored.baseline(PAIR, measured)
    return list(session.results.written.values())


@pytest.mark.parametrize("summary", [False, True])
def test_fewer_samples_of_a_control_are_no_change(tmp_path: Path, summary: bool) -> None:
    assert written(tmp_path, with_noise(64), with_noise(40), summary=summary) == []
    assert read_json(tmp_path / "made" / "curves.json")["control_samples"] == {"noise": 64}


@pytest.mark.parametrize("summary", [False, True])
def test_a_baseline_without_the_number_has_all_samples(tmp_path: Path, summary: bool) -> None:
    path = write_baseline(tmp_path, with_noise(64), {}, phases_of(with_noise(64)), summary=summary)
    content = read_json(path)
    del content["control_samples"]
    write_files(path, content)
    assert updated(tmp_path, with_noise(40)) == []


@pytest.mark.parametrize(
    ("stored", "measured"), [(with_noise(40), with_noise(64)), (with_noise(64), with_noise(64, 2))]
)
@pytest.mark.parametrize("summary", [False, True])
def test_further_samples_and_other_numbers_are_a_change(
    tmp_path: Path, stored: Profile, measured: Profile, summary: bool
) -> None:
    assert written(tmp_path, stored, measured, summary=summary) == ["changed"]


def test_other_numbers_of_the_common_samples_are_a_change(tmp_path: Path) -> None:
    assert written(tmp_path, with_noise(64), with_noise(40, seed=2)) == ["changed"]


def test_a_stored_control_belongs_to_its_samples(tmp_path: Path) -> None:
    profile = with_noise(40)
    stored = read_baseline(write_baseline(tmp_path, profile, {}, phases_of(profile))).profile
    assert stored.samples_of("noise") == profile.sample_ids[:40]
    assert stored.controls.keys() == {"noise"}
    assert stored.controls["noise"].keys() == set(CURVES)
    assert find_baseline(tmp_path, with_noise(64)).profile.samples_of("noise") == profile.sample_ids[:40]
