"""The results under a second instruction of the same meaning: a sentence for all views, and the entry of the record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from harness.analysis.boundary_agreement import BoundaryKind, BoundaryShift
from harness.analysis.claims import CLAIMS
from harness.analysis.mean_difference import Verdict
from harness.analysis.turning_points import BoundaryInterval
from harness.errors import shorten
from harness.judgement.phases import interval_record
from harness.judgement.rephrasing import RephrasedClaim, Rephrasing
from harness.judgement.results import Result, boundary_result
from harness.profile.pair import Pair
from harness.report.messages import part_brief
from harness.report.outcomes import PairOutcome
from harness.report.recorded_verdicts import number, recorded_boundaries
from harness.report.verdict_numbers import verdict_numbers

_SURVIVAL = {"differs": "moved beyond the margin", "inconclusive": "inconclusive"}


def rephrasing_text(outcome: PairOutcome) -> str:
    """Return a sentence on the boundaries and claims under a second instruction; empty without --phase-rephrase."""
    if outcome.not_rephrased:
        return f"not rephrased: {outcome.not_rephrased}"
    if outcome.rephrasing is None:
        return ""
    rephrasing = outcome.rephrasing
    changes = [
        f"{name} {claim.original} -> {claim.verdict}"
        for name, claim in rephrasing.claims.items()
        if not claim.unchanged
    ]
    counted = f"{len(rephrasing.claims) - len(changes)} of {len(rephrasing.claims)} unchanged"
    boundaries = _boundaries(rephrasing.boundaries, rephrasing.turning_points)
    claims = "; ".join([counted, *changes])
    return f"rephrased as '{shorten(rephrasing.instruction)}': {boundaries}; claims: {claims}"


def rephrasing_record(rephrasing: Rephrasing) -> dict[str, Any]:
    """Return the results under a second instruction as JSON types."""
    result = rephrasing.boundaries
    return {
        "instruction": rephrasing.instruction,
        "turning_points": list(map(interval_record, rephrasing.turning_points)),
        "boundaries": {"verdict": result.verdict, "numbers": verdict_numbers(result)},
        "claims": {name: claim._asdict() for name, claim in rephrasing.claims.items()},
    }


def recorded_rephrasing(pair: Pair, entry: Mapping[str, Any]) -> Rephrasing:
    """Return the results under a second instruction from the entry `rephrased` of a record.

    Raises:
        KeyError, TypeError, ValueError: the entry is damaged.
    """
    boundaries = entry["boundaries"]
    return Rephrasing(
        instruction=str(entry["instruction"]),
        turning_points=tuple(BoundaryInterval(*map(number, point)) for point in entry["turning_points"]),
        boundaries=boundary_result(pair, recorded_boundaries(Verdict(boundaries["verdict"]), boundaries["numbers"])),
        claims={name: RephrasedClaim(**entry["claims"][name]) for name in CLAIMS if name in entry["claims"]},
    )


def _boundaries(result: Result, turning_points: Iterable[BoundaryInterval]) -> str:
    """Return the turning points under both instructions, and the verdict on the shifts of all boundaries."""
    shifts = [part.source for part in result.parts if isinstance(part.source, BoundaryShift)]
    turns = [shift for shift in shifts if shift.kind is BoundaryKind.TURNING_POINT]
    before = "/".join(f"{shift.baseline:g}" for shift in turns)
    after = "/".join(map(_with_interval, turning_points))
    verdict = "the same in every sample"
    if result.verdict == "equivalent":
        margins = [f"{shift.margin:.2g}" for shift in turns]
        verdict = f"within the margins of {'/'.join(margins)} layers"
        if len(set(margins)) == 1:
            verdict = f"within the margin of {margins[0]} layer{'' if margins[0] == '1' else 's'}"
    elif result.verdict != "reproduces":
        first, *others = [part_brief(shift) for shift in shifts if shift.verdict == result.verdict]
        more = f"; {len(others)} more" if others else ""
        verdict = f"{_SURVIVAL[result.verdict]} ({first}{more})"
    return f"boundaries {before} -> {after}, {verdict}"


def _with_interval(point: BoundaryInterval) -> str:
    interval = "" if point.low == point.high else f" [{point.low:g}-{point.high:g}]"
    return f"{point.estimate:g}{interval}"
