"""Verdicts of a session: judged once per pair and question, and recorded for the summary and the JSON."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.analysis.agreement import Agreement
from harness.analysis.boundary_agreement import BoundaryAgreement
from harness.analysis.claims import Claim
from harness.analysis.interval_agreement import IntervalAgreement
from harness.analysis.mean_difference import Verdict
from harness.analysis.timing import TimingRatio
from harness.baselines.store import Baseline
from harness.judgement.evidence import (
    Evidence,
    boundary_evidence,
    claim_evidence,
    family_evidence,
    interval_evidence,
    timing_evidence,
)
from harness.judgement.phases import claim_record, claims_of, number, phase_reading
from harness.judgement.regression import Comparison, compare, compare_boundaries, compare_intervals
from harness.profile.measures import FAMILIES
from harness.profile.pair import Pair
from harness.profile.profile import Profile
from harness.run.session import PhaseSession, VerdictLine


class Judge:
    """Answers the questions of one pair; every answer is recorded in the session the first time it is given."""

    def __init__(self, session: PhaseSession, pair: Pair) -> None:
        self._session, self._pair = session, pair
        self._claims: dict[str, Claim] | None = None
        self._comparisons: dict[str, Comparison] = {}
        self._boundaries: BoundaryAgreement | None = None
        self._intervals: IntervalAgreement | None = None

    def claim(self, profile: Profile, name: str) -> Claim:
        """The verdict on a claim of the paper."""
        if self._claims is None:
            self._claims = claims_of(phase_reading(profile))
        claim = self._claims[name]
        self._session.claims.setdefault(self._pair, {})[name] = claim
        self._record("replication", name, str(claim.verdict), claim_record(claim), claim_evidence(claim))
        return claim

    def regression(self, profile: Profile, baseline: Baseline, family: str) -> Comparison:
        """The verdict on a family of measures against the baseline."""
        if family not in self._comparisons:
            self._comparisons[family] = compare(profile, baseline, FAMILIES[family])
        comparison = self._comparisons[family]
        numbers: dict[str, Any] = {finding.measure.name: _numbers(finding.agreement) for finding in comparison.findings}
        numbers["n"] = baseline.samples
        if comparison.not_compared:
            numbers["not_compared"] = dict(comparison.not_compared)
        if comparison.inputs.changed:
            numbers["inputs"] = {"changed": comparison.inputs.changed}
        changed = comparison.verdict is Verdict.DIFFERS or not _reproduced(baseline, comparison)
        self._record(
            "regression", family, str(comparison.verdict), numbers, family_evidence(comparison), changed=changed
        )
        return comparison

    def boundaries(self, profile: Profile, baseline: Baseline) -> BoundaryAgreement:
        """The verdict on the layers that separate the phases against the baseline."""
        if self._boundaries is None:
            self._boundaries = compare_boundaries(profile, baseline)
        numbers = {
            f"{shift.kind} {shift.index}": {
                "verdict": str(shift.verdict),
                "now": number(shift.now),
                "baseline": number(shift.baseline),
                "interval": [number(end) for end in shift.interval],
                "margin": number(shift.margin),
                "n": self._boundaries.n,
                "paired": self._boundaries.paired,
            }
            for shift in self._boundaries.shifts
        }
        verdict, evidence = self._boundaries.verdict, boundary_evidence(self._boundaries)
        self._record("regression", "boundaries", str(verdict), numbers, evidence, changed=verdict is Verdict.DIFFERS)
        return self._boundaries

    def intervals(self, profile: Profile, baseline: Baseline) -> IntervalAgreement:
        """The verdict on what held in each phase of the baseline."""
        if self._intervals is None:
            self._intervals = compare_intervals(profile, baseline)
        numbers = {
            f"phase {finding.phase} {finding.question}": {
                "verdict": None if finding.verdict is None else str(finding.verdict),
                "layers": [finding.first, finding.last],
                "then": str(finding.then),
                "now": str(finding.now),
                "before": number(finding.before),
                "effect": number(finding.effect),
                "interval": [number(end) for end in finding.interval],
                "margin": number(finding.margin),
                "change": number(finding.change),
                "change_interval": [number(end) for end in finding.change_interval],
                "n": finding.n,
            }
            for finding in self._intervals.findings
        }
        verdict, evidence = self._intervals.verdict, interval_evidence(self._intervals)
        self._record("regression", "intervals", str(verdict), numbers, evidence, changed=verdict is Verdict.DIFFERS)
        return self._intervals

    def timing(self, ratio: TimingRatio) -> None:
        """Keep the hooked/plain ratio for the summary; it is no part of the JSON, since no two runs agree on it."""
        self._session.ratios[self._pair] = (ratio.ratio, *ratio.interval)
        self._session.asked.append(
            VerdictLine(self._pair, "timing", "hooked/plain", "", {}, evidence=timing_evidence(ratio))
        )

    def _record(
        self,
        kind: str,
        question: str,
        verdict: str,
        numbers: dict[str, Any],
        evidence: tuple[Evidence, ...],
        *,
        changed: bool = False,
    ) -> None:
        self._session.record(VerdictLine(self._pair, kind, question, verdict, numbers, evidence, changed))


def _reproduced(baseline: Baseline, comparison: Comparison) -> bool:
    """Whether a family is the baseline's sample by sample, or need not be."""
    if not baseline.asks_reproduction:
        return True
    if comparison.inputs.changed:
        return False
    asked = not comparison.reproducible
    return not (asked and any(finding.agreement.reproduced is False for finding in comparison.findings))


def _numbers(agreement: Agreement) -> dict[str, Any]:
    mean = agreement.mean
    return {
        "verdict": str(agreement.verdict),
        "view": str(mean.view),
        "paired": mean.paired,
        "n": mean.n,
        "layers": list(agreement.layers),
        "layer": mean.layer,
        "effect": number(mean.effect),
        "interval": [number(end) for end in mean.interval],
        "margin": number(mean.margin),
        "reproduced": agreement.reproduced,
        "beyond": agreement.beyond,
        "largest": None if agreement.largest is None else number(agreement.largest),
        "compared": agreement.compared,
        "tolerance": {
            "amount": number(float(np.max(agreement.tolerance.amount))),
            "share": agreement.tolerance.share,
            "reason": agreement.tolerance.reason,
            "noise": None if agreement.tolerance.noise is None else number(agreement.tolerance.noise),
        },
    }
