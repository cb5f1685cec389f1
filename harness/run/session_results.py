"""The results of a session, for all its reports; xdist's workers send them to the controller."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.profile.pair import Pair
from harness.run.options import Options
from harness.run.warning_counts import WarningCounts
from harness.storage.file_names import short_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from harness.analysis.claims import Claim
    from harness.analysis.phase_reading import PhaseReading
    from harness.analysis.timing import TimingRatio
    from harness.baselines.store import Baseline
    from harness.judgement.rephrasing import Rephrasing
    from harness.judgement.results import Result
    from harness.judgement.weights import WeightParts
    from harness.profile.profile import Profile

MOST_INCONCLUSIVE = 0.25
PRIMARY = "inter"


@dataclass
class SessionResults:
    """Profiles, verdicts and baselines of a session, by pair.

    `collected` holds the pairs of the selected tests, `baselines` the baselines of regression verdicts, and `weights`
    the hashes of each model's parts. `matched` holds the baselines read, `written` the files written and why.
    `messages` holds lines for the terminal, `unmeasured` the reasons why pairs could not be measured, and `unavailable`
    those of them whose weights or data this machine lacks. `reported` holds the pairs whose claims are reported and
    fail no test. `unrecorded` holds the pairs that had no baseline before the run, `without_knockout` those whose
    baseline lacked one, `recorded` those with a new or changed baseline. `rephrasings` holds the results of
    --phase-rephrase, `not_rephrased` the reasons why pairs have none. `known_differences` holds the reasons for
    expected failures by pair and claim; None reads them from the baselines' directory.
    """

    options: Options
    collected: tuple[Pair, ...] = ()
    profiles: dict[Pair, Profile] = field(default_factory=dict)
    verdicts: list[Result] = field(default_factory=list)
    ratios: dict[Pair, TimingRatio] = field(default_factory=dict)
    baselines: dict[Pair, Baseline] = field(default_factory=dict)
    weights: dict[str, WeightParts] = field(default_factory=dict)
    matched: set[Path] = field(default_factory=set)
    written: dict[Path, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    unmeasured: dict[Pair, str] = field(default_factory=dict)
    unavailable: set[Pair] = field(default_factory=set)
    reported: set[Pair] = field(default_factory=set)
    unrecorded: set[Pair] = field(default_factory=set)
    without_knockout: set[Pair] = field(default_factory=set)
    recorded: set[Pair] = field(default_factory=set)
    rephrasings: dict[Pair, Rephrasing] = field(default_factory=dict)
    not_rephrased: dict[Pair, str] = field(default_factory=dict)
    warnings: WarningCounts = field(default_factory=WarningCounts)
    known_differences: Mapping[str, Mapping[str, str]] | None = None
    _readings: dict[Pair, PhaseReading] = field(default_factory=dict)
    _claims: dict[Pair, dict[str, Claim]] = field(default_factory=dict)

    def record(self, result: Result) -> None:
        """Store a verdict, unless one on the same pair and question is stored."""
        question = (result.pair, result.question)
        if question not in ((known.pair, known.question) for known in self.verdicts):
            self.verdicts.append(result)

    def merge(self, other: SessionResults) -> None:
        """Merge the results of another session with the same options; pairs keep the options' order."""
        order = {pair: index for index, pair in enumerate(self.options.pairs())}

        def position(pair: Pair) -> int:
            return order.get(pair, len(order))

        profiles, written = {**other.profiles, **self.profiles}, {**self.written, **other.written}
        self.profiles.clear()
        self.profiles.update((pair, profiles[pair]) for pair in sorted(profiles, key=position))
        self.written.clear()
        self.written.update(sorted(written.items()))
        self.verdicts[:] = sorted([*self.verdicts, *other.verdicts], key=lambda result: position(result.pair))
        self.baselines |= other.baselines
        self.weights |= other.weights
        self.matched |= other.matched
        self.reported |= other.reported
        self.unrecorded |= other.unrecorded
        self.without_knockout |= other.without_knockout
        self.recorded |= other.recorded
        self.rephrasings |= other.rephrasings
        self.not_rephrased |= other.not_rephrased
        self.messages += [line for line in other.messages if line not in self.messages]
        self.unmeasured |= {**other.unmeasured, **self.unmeasured}
        self.unavailable |= other.unavailable
        self.warnings.update(other.warnings)

    def verdicts_by_question(self, pair: Pair, kind: str) -> dict[str, Result]:
        """Return the verdicts of one kind on a pair, by question."""
        return {result.question: result for result in self.verdicts if (result.pair, result.kind) == (pair, kind)}

    def reading(self, pair: Pair) -> PhaseReading:
        """Return the phases of a measured pair, computed once for all reports."""
        from harness.judgement.phases import phase_reading

        if pair not in self._readings:
            self._readings[pair] = phase_reading(self.profiles[pair])
        return self._readings[pair]

    def claims(self, pair: Pair) -> dict[str, Claim]:
        """Return the verdicts on all claims of a measured pair, computed once for all tests and reports."""
        from harness.judgement.phases import judge_claims

        if pair not in self._claims:
            self._claims[pair] = judge_claims(self.reading(pair))
        return self._claims[pair]

    def opposite_claim(self, pair: Pair, name: str) -> Claim | None:
        """Return the claim of the --phase-against model if it fails where the pair's holds, or the reverse."""
        other = self.options.reference_pair(pair)
        if other is None or other not in self.profiles:
            return None
        claims = self.claims(pair)[name], self.claims(other)[name]
        return claims[1] if {claim.verdict for claim in claims} == {"holds", "fails"} else None

    def fails_no_test(self, pair: Pair, name: str) -> bool:
        """Return True if a failing claim of a pair is a finding, which is reported and fails no test."""
        if self.options.strict_claims:
            return False
        if self.options.against is None and self._is_unrecorded_flow(pair, name):
            return True
        return pair in self.reported if self.options.against is None else self.opposite_claim(pair, name) is None

    def _is_unrecorded_flow(self, pair: Pair, name: str) -> bool:
        """Return True for a causal claim of a pair whose baseline has no knockout to stay equal to."""
        from harness.analysis.flow_claims import FLOW_CLAIMS

        return name in FLOW_CLAIMS and pair in self.without_knockout

    def compared_pairs(self) -> dict[Pair, Pair]:
        """Return the measured pairs with the measured pairs that --phase-against compares them with."""
        others = {pair: self.options.reference_pair(pair) for pair in self.profiles}
        return {pair: other for pair, other in others.items() if other != pair and other in self.profiles}

    def unmeasured_reasons(self) -> dict[Pair, str]:
        """Return the reasons, by pair, why collected pairs have no profile."""
        reasons = dict.fromkeys(self.collected, "no test that ran requested it") | self.unmeasured
        return {pair: reason for pair, reason in reasons.items() if pair not in self.profiles}

    def describe_changes(self) -> str:
        """Return the questions with confirmed differences from the baseline, by pair; empty if there are none."""
        changed: dict[Pair, list[str]] = {}
        for result in self.verdicts:
            if result.changed:
                change = "differs" if result.verdict == "differs" else "is not the same"
                changed.setdefault(result.pair, []).append(f"{result.question} {change}")
        return "; ".join(f"{short_name(str(pair))}: {', '.join(questions)}" for pair, questions in changed.items())

    def inconclusive_reason(self) -> str:
        """Return the reason why too many verdicts are inconclusive for the run to pass; empty if there is none."""
        judged = [result for result in self.verdicts if self._needs_evidence(result)]
        inconclusive = [result for result in judged if result.verdict == "inconclusive"]
        if len(inconclusive) > MOST_INCONCLUSIVE * len(judged):
            return (
                f"{len(inconclusive)} of {len(judged)} verdicts are inconclusive, more than a quarter: the "
                "suite is inconclusive; raise --phase-samples"
            )
        for result in inconclusive:
            primary = (result.kind, result.question) == ("regression", PRIMARY)
            if primary and self.profiles[result.pair].n >= result.baseline_n:
                hint = "; raise --phase-samples" if self.options.against else " at the baseline's own n"
                return f"the primary verdict of {result.pair} ({PRIMARY}) is inconclusive{hint}"
        return ""

    def _needs_evidence(self, result: Result) -> bool:
        """Return True unless the verdict is on a claim that has no baseline to stay equal to."""
        without_baseline = self.options.against is not None or result.pair in self.unrecorded
        without_baseline = without_baseline or self._is_unrecorded_flow(result.pair, result.question)
        return result.claim is None or self.options.strict_claims or not without_baseline

    def problem(self) -> str:
        """Return the reason why the run fails even if its tests pass, confirmed differences first; empty if none."""
        inconclusive_reason, changes = self.inconclusive_reason(), self.describe_changes()
        return f"{changes}. Besides, {inconclusive_reason}" if inconclusive_reason and changes else inconclusive_reason
