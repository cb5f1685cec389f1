"""The numbers behind a verdict, in one form for all questions: for the Markdown summary and the JUnit properties."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from harness.analysis.boundary_agreement import BoundaryAgreement
from harness.analysis.claims import PHASES, Claim
from harness.analysis.interval_agreement import IntervalAgreement
from harness.analysis.timing import TimingRatio
from harness.judgement.regression import Comparison, Finding

# From the worst on; what comes first among equals is farthest beyond its margin.
WORST_FIRST = ("differs", "fails", "inconclusive", "equivalent", "reproduces", "holds")


@dataclass(frozen=True, slots=True)
class Evidence:
    """One part of a verdict: of a measure, a boundary, a phase or a part of a claim.

    `measure` names it and `layers` says where, both in words; `effect` comes with its `interval`, judged against
    `margin`, in the measure's own unit. What is not known is NaN. `reproduced` is None where it was not asked.
    `change` tells the largest change of a sample in words; it is empty where no samples were compared.
    """

    measure: str
    layers: str
    verdict: str
    effect: float
    interval: tuple[float, float]
    margin: float
    n: int
    reproduced: bool | None = None
    change: str = ""


def claim_evidence(claim: Claim) -> tuple[Evidence, ...]:
    """The parts of a claim, the decisive one first."""
    parts = sorted(claim.parts, key=lambda part: part.name != claim.decisive)
    return tuple(
        Evidence(part.name, "", str(part.verdict), part.effect, part.interval, part.margin, part.n) for part in parts
    )


def family_evidence(comparison: Comparison) -> tuple[Evidence, ...]:
    """The measures of a family, the worst first."""
    return _worst_first(_measure(finding) for finding in comparison.findings)


def largest_change(largest: float, noise: float | None) -> str:
    """Return the largest change of a sample in words, also as a multiple of the noise where that is known."""
    if not noise:
        return f"largest change {largest:.2g}"
    return f"largest change {largest:.2g}, {_three_digits(largest / noise)} x the noise"


def boundary_evidence(agreement: BoundaryAgreement) -> tuple[Evidence, ...]:
    """The boundaries, the one that moved farthest first; effects in layers."""
    return _worst_first(
        Evidence(
            f"{shift.kind} {shift.index}",
            f"layer {shift.baseline:g} to {shift.now:g}",
            str(shift.verdict),
            shift.effect,
            shift.interval,
            shift.margin,
            agreement.n,
        )
        for shift in agreement.shifts
    )


def interval_evidence(agreement: IntervalAgreement) -> tuple[Evidence, ...]:
    """The questions about phases that the baseline was certain of, the worst first."""
    return _worst_first(
        Evidence(
            f"phase {PHASES[finding.phase - 1]}, {finding.question}",
            f"residual points {finding.first}-{finding.last}",
            str(finding.verdict),
            finding.effect,
            finding.interval,
            finding.margin,
            finding.n,
        )
        for finding in agreement.findings
        if finding.verdict is not None
    )


def timing_evidence(timing: TimingRatio) -> tuple[Evidence, ...]:
    """The ratio alone: what it is judged against is the baseline's."""
    return (Evidence("hooked/plain", "", "", timing.ratio, timing.interval, math.nan, timing.n),)


def _measure(finding: Finding) -> Evidence:
    agreement, mean = finding.agreement, finding.agreement.mean
    return Evidence(
        finding.measure.title,
        finding.measure.axis.words(finding.indices),
        str(agreement.verdict),
        mean.effect,
        mean.interval,
        mean.margin,
        mean.n,
        agreement.reproduced,
        "" if agreement.largest is None else largest_change(agreement.largest, agreement.tolerance.noise),
    )


def _worst_first(parts: Iterable[Evidence]) -> tuple[Evidence, ...]:
    def badness(part: Evidence) -> tuple[int, bool, float]:
        excess = abs(part.effect) / part.margin
        return WORST_FIRST.index(part.verdict), part.reproduced is not False, -excess if math.isfinite(excess) else 0.0

    return tuple(sorted(parts, key=badness))


def _three_digits(value: float) -> str:
    """The value without exponent, to three significant digits."""
    return f"{float(f'{value:.3g}'):,.12g}"
