"""The verdicts of a record as typed results, the inverse of `verdict_numbers`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from harness.analysis.agreement import Agreement
from harness.analysis.boundary_agreement import BoundaryAgreement, BoundaryKind, BoundaryShift
from harness.analysis.claims import Claim, ClaimPart, ClaimVerdict
from harness.analysis.control_difference import ControlDifference, CurveDifference
from harness.analysis.interval_agreement import IntervalAgreement, IntervalFinding, Question
from harness.analysis.margins import Tolerance
from harness.analysis.mean_difference import MeanComparison, Verdict, View
from harness.analysis.monotone import Answer, Monotonicity, Presence
from harness.judgement.phases import CLAIM_NAMES
from harness.judgement.regression import Finding
from harness.judgement.results import Evidence, Result, boundary_result, claim_result, interval_result, measure_evidence
from harness.profile.measures import FAMILIES, MEASURES, Measure
from harness.profile.pair import Pair


def recorded_result(pair: Pair, entry: Mapping[str, Any]) -> Result:
    """Return the result of an entry of a record's `verdicts`.

    Raises:
        KeyError, TypeError, ValueError: the entry is damaged.
    """
    question, numbers = str(entry["question"]), entry["numbers"]
    if question in CLAIM_NAMES:
        return claim_result(pair, recorded_claim(question, numbers))
    verdict, changed = Verdict(entry["verdict"]), bool(entry["changed"])
    if question == "boundaries":
        return boundary_result(pair, recorded_boundaries(verdict, numbers))
    if question == "intervals":
        findings = tuple(_phase_finding(title, numbers[title]) for title in sorted(numbers, key=_phase_order))
        return interval_result(pair, IntervalAgreement(verdict, False, findings[0].n, 0, math.nan, findings))
    measures = [measure for measure in FAMILIES[question].measures if measure.name in numbers]
    parts: list[Evidence] = [
        *measure_evidence([recorded_finding(measure, numbers[measure.name]) for measure in measures], {}),
        *measure_evidence([], _by_measure(numbers.get("not_compared", {}))),
    ]
    inputs = str(numbers.get("inputs", {}).get("changed", ""))
    return Result(pair, "regression", question, str(verdict), tuple(parts), changed, int(numbers.get("n", 0)), inputs)


def recorded_boundaries(verdict: Verdict, numbers: Mapping[str, Any]) -> BoundaryAgreement:
    """Return the verdict on the boundaries, with its numbers by boundary."""
    shifts = tuple(_shift(title, shift) for title, shift in sorted(numbers.items(), key=_boundary_order))
    first = next(iter(numbers.values()))
    return BoundaryAgreement(verdict, bool(first["paired"]), int(first["n"]), 0, 1, math.nan, shifts[0], shifts)


def recorded_finding(measure: Measure, numbers: Mapping[str, Any]) -> Finding:
    """Return the finding on a measure; the record omits both views' own numbers and the changes of single samples."""
    tolerance = numbers["tolerance"]
    layers, verdict = tuple(map(int, numbers["layers"])), Verdict(numbers["verdict"])
    mean = MeanComparison(
        view=View(numbers["view"]),
        verdict=verdict,
        paired=bool(numbers["paired"]),
        n=int(numbers["n"]),
        n_baseline=int(numbers["n"]),
        layers=layers,
        layer=int(numbers["layer"]),
        effect=number(numbers["effect"]),
        interval=interval(numbers["interval"]),
        confidence=math.nan,
        margin=number(numbers["margin"]),
        n_needed=numbers["needed"],
    )
    return Finding(
        measure,
        Agreement(
            verdict=verdict,
            mean=mean,
            level=mean,
            shape=None,
            layers=layers,
            reason="",
            tolerance=Tolerance(
                number(tolerance["amount"]), float(tolerance["share"]), str(tolerance["reason"]), tolerance["noise"]
            ),
            reproduced=numbers["reproduced"],
            beyond_tolerance=int(numbers["beyond_tolerance"]),
            compared=int(numbers["compared"]),
            largest=numbers["largest"],
        ),
    )


def recorded_claim(name: str, numbers: Mapping[str, Any]) -> Claim:
    """Return a claim, the inverse of `phases.claim_record`."""
    parts = tuple(
        ClaimPart(
            name=str(part["name"]),
            statement=str(part["statement"]),
            verdict=ClaimVerdict(part["verdict"]),
            effect=number(part["effect"]),
            interval=interval(part["interval"]),
            margin=number(part["margin"]),
            n=int(part["n"]),
            control_differences=tuple(
                ControlDifference(
                    control=str(difference["control"]),
                    quantity=str(difference["quantity"]),
                    effect=number(difference["effect"]),
                    interval=interval(difference["interval"]),
                    confirmed=bool(difference["confirmed"]),
                    n=int(difference["n"]),
                )
                for difference in part["control_differences"]
            ),
        )
        for part in numbers["parts"]
    )
    curves = tuple(
        CurveDifference(
            control=str(control),
            above=tuple(map(int, curve["above"])),
            below=tuple(map(int, curve["below"])),
            highest=number(curve["highest"]),
            lowest=number(curve["lowest"]),
            margin=number(curve["margin"]),
            confidence=float(curve["confidence"]),
            n=int(curve["n"]),
        )
        for control, curve in numbers["curve_differences"].items()
    )
    return Claim(name, parts, curves)


def number(value: float | None) -> float:
    """Return a number of a record; null is NaN."""
    return math.nan if value is None else float(value)


def interval(ends: Sequence[float | None]) -> tuple[float, float]:
    """Return an interval of a record."""
    low, high = map(number, ends)
    return low, high


def _shift(title: str, numbers: Mapping[str, Any]) -> BoundaryShift:
    kind, _, index = title.rpartition(" ")
    measured, baseline = number(numbers["measured"]), number(numbers["baseline"])
    return BoundaryShift(
        kind=BoundaryKind(kind),
        index=int(index),
        verdict=Verdict(numbers["verdict"]),
        measured=measured,
        baseline=baseline,
        effect=measured - baseline,
        interval=interval(numbers["interval"]),
        margin=number(numbers["margin"]),
        n_needed=numbers["needed"],
    )


def _phase_finding(title: str, numbers: Mapping[str, Any]) -> IntervalFinding:
    _, phase, question = title.split(" ")
    first, last = map(int, numbers["layers"])
    return IntervalFinding(
        phase=int(phase),
        question=Question(question),
        first=first,
        last=last,
        # The first phase is a rise, and the directions alternate.
        direction=1 if int(phase) % 2 else -1,
        verdict=None if numbers["verdict"] is None else Verdict(numbers["verdict"]),
        baseline=_answer(question, numbers["baseline"]),
        measured=_answer(question, numbers["measured"]),
        layers=(first, last),
        before=number(numbers["before"]),
        effect=number(numbers["effect"]),
        interval=interval(numbers["interval"]),
        margin=number(numbers["margin"]),
        change=number(numbers["change"]),
        change_interval=interval(numbers["change_interval"]),
        n=int(numbers["n"]),
        n_needed=numbers["needed"],
    )


def _answer(question: str, text: str) -> Answer:
    return Presence(text) if question == Question.PRESENCE else Monotonicity(text)


def _boundary_order(item: tuple[str, Any]) -> tuple[bool, str]:
    """Sort turning points before half-heights, each by number."""
    return not item[0].startswith(BoundaryKind.TURNING_POINT), item[0]


def _phase_order(title: str) -> tuple[str, bool]:
    """Sort by phase, presence first."""
    return title.split(" ")[1], not title.endswith(Question.PRESENCE)


def _by_measure(reasons: Mapping[str, str]) -> dict[str, str]:
    return {name: str(reasons[name]) for name in MEASURES if name in reasons}
