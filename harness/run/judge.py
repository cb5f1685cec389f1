"""Verdicts of a session: computed once per pair and question, and recorded for all reports."""

from __future__ import annotations

from harness.analysis.boundary_agreement import BoundaryAgreement
from harness.analysis.claims import Claim
from harness.analysis.interval_agreement import IntervalAgreement
from harness.analysis.timing import TimingRatio
from harness.baselines.store import Baseline
from harness.judgement.phases import judge_claims, phase_reading
from harness.judgement.regression import Comparison, compare, compare_boundaries, compare_intervals
from harness.judgement.results import boundary_result, claim_result, family_result, interval_result, timing_result
from harness.profile.measures import FAMILIES
from harness.profile.pair import Pair
from harness.profile.profile import Profile
from harness.run.session import PhaseSession


class Judge:
    """Computes the verdicts on one pair and records each of them in the session."""

    def __init__(self, session: PhaseSession, pair: Pair) -> None:
        self._session, self._pair = session, pair
        self._claims: dict[str, Claim] | None = None
        self._comparisons: dict[str, Comparison] = {}
        self._boundaries: BoundaryAgreement | None = None
        self._intervals: IntervalAgreement | None = None

    def claim(self, profile: Profile, name: str) -> Claim:
        """Return the verdict on a claim of the paper."""
        if self._claims is None:
            self._claims = judge_claims(phase_reading(profile))
        self._session.record(claim_result(self._pair, self._claims[name]))
        return self._claims[name]

    def regression(self, profile: Profile, baseline: Baseline, family: str) -> Comparison:
        """Return the verdict on a family of measures against the baseline."""
        if family not in self._comparisons:
            self._comparisons[family] = compare(profile, baseline, FAMILIES[family])
        self._session.record(family_result(self._pair, self._comparisons[family], baseline), baseline)
        return self._comparisons[family]

    def boundaries(self, profile: Profile, baseline: Baseline) -> BoundaryAgreement:
        """Return the verdict on the phase boundaries against the baseline."""
        if self._boundaries is None:
            self._boundaries = compare_boundaries(profile, baseline)
        self._session.record(boundary_result(self._pair, self._boundaries), baseline)
        return self._boundaries

    def intervals(self, profile: Profile, baseline: Baseline) -> IntervalAgreement:
        """Return the verdict on the properties of each phase against the baseline."""
        if self._intervals is None:
            self._intervals = compare_intervals(profile, baseline)
        self._session.record(interval_result(self._pair, self._intervals), baseline)
        return self._intervals

    def timing(self, ratio: TimingRatio) -> None:
        """Record the hooked/plain ratio for the summary; the JSON omits it, because it differs from run to run."""
        self._session.record_ratio(timing_result(self._pair, ratio), ratio)
