"""A session with a judged synthetic profile, as after a run of the cases, without a model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from harness.analysis.timing import timing_ratio
from harness.baselines.store import find_baseline, write_baseline
from harness.judgement.phases import judge_claims, phase_reading, phases_of
from harness.profile.measures import FAMILIES
from harness.profile.pair import Pair
from harness.profile.profile import Profile
from harness.run.judge import Judge
from harness.run.options import Options
from harness.run.session import PhaseSession
from harness.run.session_results import SessionResults
from harness.tests.support.synthetic_profiles import ENVIRONMENT, L, replace_arrays, synthetic_profile


def make_session(baselines: Path, **values: Any) -> PhaseSession:
    """Return a session with default options except the baselines' directory and `values`."""
    options = Options(
        models=(), against=None, datasets=(), trust_code=(), allow_unused_weights=(), data={}, download=False,
        samples=None, seed=0, device="auto", dtype="auto", batch_size=8, controls=(), control_samples=64,
        baselines=baselines, update=False, update_new=False, reason=None, summary=False, calibrate=False,
        accept_claims=False, strict_claims=False, strict_evidence=False, cache=baselines, process_timeout=9,
        no_cache=True, knockout=False, knockout_window=None, rephrase=False, draw=(), json=None, markdown=None,
        report=None,
    )  # fmt: skip
    return PhaseSession(dataclasses.replace(options, **values), say=lambda _: None)


def make_differing_profile() -> Profile:
    """Return the synthetic profile with other weights, another environment and one measure beyond its margin."""
    profile = synthetic_profile()
    shift = np.where((np.arange(L + 1) >= 6) & (np.arange(L + 1) <= 8), 0.09, 0.0).astype(np.float32)
    environment = dataclasses.replace(ENVIRONMENT, torch="2.16.0", attention="eager")
    measured = replace_arrays(profile, inter=profile["inter"] + shift)
    return dataclasses.replace(measured, weights="fedcba9876543210", environment=environment)


def judge_all(session: PhaseSession, profile: Profile) -> None:
    """Judge a profile as the cases do, against the session's baselines."""
    pair = Pair(profile.model, profile.dataset)
    session.results.profiles[pair] = profile
    judge, baseline = Judge(session, pair), find_baseline(session.options.baselines, profile)
    for name in judge_claims(phase_reading(profile)):
        judge.claim(profile, name)
    for family in FAMILIES:
        judge.regression(profile, baseline, family)
    judge.boundaries(profile, baseline)
    judge.intervals(profile, baseline)
    judge.timing(timing_ratio(np.log(1.5) + 0.02 * np.random.default_rng(0).standard_normal(31)))


def judge_profiles(baselines: Path, *profiles: Profile, **stored: Any) -> SessionResults:
    """Return the findings of a session that compares profiles with baselines of the synthetic profile and times them.

    `stored` replaces fields of the profiles in the baselines.
    """
    for profile in profiles:
        stored_profile = dataclasses.replace(
            synthetic_profile(), model=profile.model, dataset=profile.dataset, **stored
        )
        write_baseline(baselines, stored_profile, {}, phases_of(stored_profile))
    session = make_session(baselines)
    for profile in profiles:
        judge_all(session, profile)
    return session.results
