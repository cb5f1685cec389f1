"""Verdicts with their evidence, as typed values that all reports use."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from harness.analysis.boundary_agreement import BoundaryAgreement, BoundaryShift
from harness.analysis.claims import PHASES, Claim, ClaimPart
from harness.analysis.interval_agreement import IntervalAgreement, IntervalFinding
from harness.analysis.mean_difference import Verdict
from harness.analysis.timing import TimingRatio
from harness.baselines.store import Baseline
from harness.judgement.regression import Comparison, Finding
from harness.profile.measures import MEASURES, Measure
from harness.profile.pair import Pair

WORST_FIRST = ("differs", "fails", "inconclusive", "equivalent", "reproduces", "holds")
#: Verdict of a part that could not be compared, or that was inconclusive in the baseline.
NOT_ASKED = "not asked"


@dataclass(frozen=True, slots=True)
class NotCompared:
    """A measure of a family that could not be compared."""

    measure: Measure
    reason: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence on one measure, boundary or phase, or on a part of a claim.

    `title` names the part and `location` its layers, both as text. `effect`, its `interval` and the `margin` are in the
    measure's unit; unknown numbers are NaN. `verdict` is the part's own verdict, `NOT_ASKED` if there is none. `source`
    holds all computed numbers. `paired` is None where pairing does not apply.
    """

    title: str
    location: str
    verdict: str
    effect: float
    interval: tuple[float, float]
    margin: float
    n: int
    source: Finding | NotCompared | BoundaryShift | IntervalFinding | ClaimPart | TimingRatio
    paired: bool | None = None

    @property
    def samples_changed(self) -> bool:
        """True if samples changed by more than their tolerance."""
        return isinstance(self.source, Finding) and self.source.agreement.reproduced is False

    @property
    def n_needed(self) -> int | None:
        """About how many samples would decide; None if the part is decided or no number is known."""
        match self.source:
            case Finding(agreement=agreement):
                return agreement.mean.n_needed
            case BoundaryShift() | IntervalFinding():
                return self.source.n_needed
        return None

    @property
    def change(self) -> str:
        """The largest change of a sample as text; empty if no samples were compared."""
        return format_largest_change(self.source) if isinstance(self.source, Finding) else ""


@dataclass(frozen=True, slots=True)
class Result:
    """The verdict on a pair in answer to `question`, the name of a claim, a family, "boundaries" or "intervals".

    `parts` is the evidence for the verdict. `changed` is True if the verdict is "differs", or if the pair no longer
    reproduces a baseline that requires it. `inputs` describes how the inputs changed, empty if they did not.
    """

    pair: Pair
    kind: str
    question: str
    verdict: str
    parts: tuple[Evidence, ...] = ()
    changed: bool = False
    baseline_n: int = 0
    inputs: str = ""
    claim: Claim | None = None

    @property
    def worst_first(self) -> list[Evidence]:
        """The judged parts, worst verdict first, then by excess over the margin; a claim keeps its order."""

        def badness(part: Evidence) -> tuple[int, bool, float]:
            worst = WORST_FIRST.index(part.verdict) if part.verdict else 0
            excess = 0.0 if self.claim else abs(part.effect) / part.margin
            return worst, not part.samples_changed, -excess if math.isfinite(excess) else 0.0

        return sorted((part for part in self.parts if part.verdict != NOT_ASKED), key=badness)


def claim_result(pair: Pair, claim: Claim) -> Result:
    """Return the verdict on a claim of the paper."""
    parts = (
        Evidence(part.name, "", str(part.verdict), part.effect, part.interval, part.margin, part.n, part)
        for part in claim.parts
    )
    return Result(pair, "replication", claim.name, str(claim.verdict), tuple(parts), claim=claim)


def family_result(pair: Pair, comparison: Comparison, baseline: Baseline) -> Result:
    """Return the verdict on a family of measures compared with a baseline."""
    inputs, verdict = comparison.inputs.changed if comparison.findings else "", comparison.verdict
    lost = not comparison.irreproducible_reason and any(
        finding.agreement.reproduced is False for finding in comparison.findings
    )
    return Result(
        pair,
        "regression",
        comparison.family.name,
        str(verdict),
        tuple(measure_evidence(comparison.findings, comparison.not_compared)),
        changed=verdict is Verdict.DIFFERS or (baseline.requires_reproduction and (bool(inputs) or lost)),
        baseline_n=baseline.samples,
        inputs=inputs,
    )


def boundary_result(pair: Pair, agreement: BoundaryAgreement) -> Result:
    """Return the verdict on the layers that separate the phases; effects are in layers."""
    parts = (
        Evidence(
            f"{shift.kind} {shift.index}",
            f"layer {shift.baseline:g} to {shift.measured:g}",
            str(shift.verdict),
            shift.effect,
            shift.interval,
            shift.margin,
            agreement.n,
            shift,
            agreement.paired,
        )
        for shift in agreement.shifts
    )
    return _phases(pair, "boundaries", agreement, tuple(parts))


def interval_result(pair: Pair, agreement: IntervalAgreement) -> Result:
    """Return the verdict on each phase; questions inconclusive in the baseline are `NOT_ASKED`."""
    parts = (
        Evidence(
            f"phase {PHASES[finding.phase - 1]}, {finding.question}",
            f"residual points {finding.first}-{finding.last}",
            str(finding.verdict or NOT_ASKED),
            finding.effect,
            finding.interval,
            finding.margin,
            finding.n,
            finding,
        )
        for finding in agreement.findings
    )
    return _phases(pair, "intervals", agreement, tuple(parts))


def timing_result(pair: Pair, timing: TimingRatio) -> Result:
    """Return a timing ratio without a verdict, because the limit depends on the baseline."""
    part = Evidence("hooked/plain", "", "", timing.ratio, timing.interval, math.nan, timing.n, timing)
    return Result(pair, "timing", part.title, "", (part,))


def format_largest_change(finding: Finding) -> str:
    """Return the largest change of a sample as text, also as a multiple of the noise if that is known."""
    largest, noise = finding.agreement.largest, finding.agreement.tolerance.noise
    if largest is None:
        return ""
    words = f"largest change {largest:.2g}"
    # Three significant digits, without an exponent.
    return f"{words}, {float(f'{largest / noise:.3g}'):,.12g} x the noise" if noise else words


def measure_evidence(findings: Iterable[Finding], not_compared: Mapping[str, str]) -> Iterator[Evidence]:
    """Yield the evidence on the measures of a family, then the measures that could not be compared."""
    for finding in findings:
        mean = finding.agreement.mean
        names = finding.measure.title, finding.measure.axis.describe(finding.indices), str(finding.agreement.verdict)
        yield Evidence(*names, mean.effect, mean.interval, mean.margin, mean.n, finding, mean.paired)
    for name, reason in not_compared.items():
        unknown = math.nan, (math.nan, math.nan), math.nan, 0
        yield Evidence(MEASURES[name].title, "", NOT_ASKED, *unknown, NotCompared(MEASURES[name], reason))


def _phases(
    pair: Pair, question: str, agreement: BoundaryAgreement | IntervalAgreement, parts: tuple[Evidence, ...]
) -> Result:
    changed = agreement.verdict is Verdict.DIFFERS
    return Result(pair, "regression", question, str(agreement.verdict), parts, changed=changed)
