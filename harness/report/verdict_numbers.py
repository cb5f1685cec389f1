"""The numbers of verdicts as JSON types, for the record."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.analysis.agreement import Agreement
from harness.analysis.boundary_agreement import BoundaryShift
from harness.analysis.interval_agreement import IntervalFinding
from harness.judgement.phases import claim_record, json_number
from harness.judgement.regression import Finding
from harness.judgement.results import Evidence, NotCompared, Result


def verdict_numbers(result: Result) -> dict[str, Any]:
    """Return the numbers of a verdict as JSON types, by the name of the part."""
    if result.claim is not None:
        return claim_record(result.claim)
    numbers: dict[str, Any] = {}
    for part in result.parts:
        match part.source:
            case NotCompared(measure, reason):
                numbers.setdefault("not_compared", {})[measure.name] = reason
            case Finding(measure, agreement):
                numbers[measure.name] = _numbers(part) | _agreement(agreement)
            case BoundaryShift() as shift:
                numbers[part.title] = _numbers(part) | {
                    "measured": json_number(shift.measured),
                    "baseline": json_number(shift.baseline),
                }
                # The effect is redundant: `measured` minus `baseline`.
                del numbers[part.title]["effect"]
            case IntervalFinding() as finding:
                numbers[f"phase {finding.phase} {finding.question}"] = _numbers(part) | _interval(finding)
    if result.inputs:
        numbers["inputs"] = {"changed": result.inputs}
    return numbers | ({"n": result.baseline_n} if result.baseline_n else {})


def _numbers(part: Evidence) -> dict[str, Any]:
    return {
        "verdict": part.verdict,
        "effect": json_number(part.effect),
        "interval": [json_number(end) for end in part.interval],
        "margin": json_number(part.margin),
        "n": part.n,
        "needed": part.n_needed,
    } | ({} if part.paired is None else {"paired": part.paired})


def _agreement(agreement: Agreement) -> dict[str, Any]:
    tolerance = agreement.tolerance
    return {
        "view": str(agreement.mean.view),
        "layers": list(agreement.layers),
        "layer": agreement.mean.layer,
        "reproduced": agreement.reproduced,
        "beyond_tolerance": agreement.beyond_tolerance,
        "largest": None if agreement.largest is None else json_number(agreement.largest),
        "compared": agreement.compared,
        "tolerance": {
            "amount": json_number(float(np.max(tolerance.amount))),
            "share": tolerance.share,
            "reason": tolerance.reason,
            "noise": None if tolerance.noise is None else json_number(tolerance.noise),
        },
    }


def _interval(finding: IntervalFinding) -> dict[str, Any]:
    return {
        "verdict": None if finding.verdict is None else str(finding.verdict),
        "layers": [finding.first, finding.last],
        "baseline": str(finding.baseline),
        "measured": str(finding.measured),
        "before": json_number(finding.before),
        "change": json_number(finding.change),
        "change_interval": [json_number(end) for end in finding.change_interval],
    }
