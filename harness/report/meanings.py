"""Verdicts explained in sentences, with each number of a verdict as a row."""

from __future__ import annotations

import math
from typing import NamedTuple

from harness.analysis.boundary_agreement import BoundaryKind, BoundaryShift
from harness.analysis.claims import CHANCE, PHASES, ClaimPart
from harness.analysis.control_difference import ControlDifference, CurveDifference
from harness.analysis.interval_agreement import IntervalFinding, Question
from harness.judgement.paper import paper_claims
from harness.judgement.regression import Finding
from harness.judgement.results import Evidence, NotCompared, Result, format_largest_change
from harness.report.controls_compared import curve_difference_text
from harness.report.headline import BASELINE
from harness.report.outcomes import PairOutcome, changed_samples_text
from harness.report.verdict_words import QUESTIONS, VERDICTS
from harness.storage.json_text import round_numbers

_ENDS = {BoundaryKind.TURNING_POINT: "ends", BoundaryKind.HALF_HEIGHT: "reaches half-height"}
_KINDS = {"presence": "is present", "monotonicity": "is monotone"}


class Row(NamedTuple):
    """A part of a verdict; numbers that do not apply are empty strings. `excess` is |effect| / margin."""

    name: str
    verdict: str
    effect: str
    interval: str
    margin: str
    n: str
    sentence: str
    differences: tuple[str, ...] = ()
    excess: float = 0.0


class ExplainedVerdict(NamedTuple):
    """The verdict on one question, with its parts; `definition` states a claim and is empty for regression."""

    question: str
    title: str
    verdict: str
    definition: str
    sentence: str
    rows: tuple[Row, ...]


def boundary_sentence(outcome: PairOutcome) -> str:
    """Return a sentence with the layers at which the phases of a pair end."""
    ends = zip(PHASES, outcome.ends, strict=False)
    sentence = _capitalised(", ".join(f"phase {name} ends at layer {layer:g}" for name, layer in ends))
    return f"{sentence}; phase IV is the rest of {outcome.profile.depth} layers."


def certainty_sentence(outcome: PairOutcome) -> str:
    """Return a sentence on the number of confirmed phases, and on the intervals of their ends."""
    confirmed = [name for name, sure in zip(PHASES, outcome.reading.confirmed, strict=True) if sure]
    if len(confirmed) == len(PHASES):
        phases = "All four phases are confirmed"
    else:
        which = f" ({', '.join(confirmed)})" if confirmed else ""
        phases = f"{len(confirmed)} of 4 phases confirmed{which}; the cut is a best guess"
    level = f"{outcome.reading.boundaries.level:.0%}"
    wide = any(end.low != end.high for end in outcome.ends)
    ends = f"brackets are {level} intervals" if wide else f"the {level} interval of each end is one layer"
    return f"{phases}. From {outcome.profile.n} samples; {ends}."


def verdict_meaning(word: str, other: str = BASELINE) -> str:
    """Return the meaning of a verdict on a comparison with `other`, the baseline or a model."""
    return VERDICTS[word].meaning.replace(BASELINE, other)


def explain_verdict(result: Result, other: str = BASELINE) -> ExplainedVerdict:
    """Return the verdict on a claim or a regression question in sentences.

    Args:
        result: the verdict with its evidence.
        other: the name of what the pair is compared with: the baseline or a model.
    """
    word, rows = result.verdict, tuple(_row(part, other) for part in result.parts)
    sentence = verdict_meaning(word, other)
    if result.claim is None:
        if word == "reproduces":
            # Boundaries and intervals are computed from the curve, so they reproduce if it does.
            rows = tuple(row._replace(verdict=word) if row.verdict in VERDICTS else row for row in rows)
        sentence = f"{_capitalised(result.inputs)}. {sentence}" if result.inputs else sentence
        return ExplainedVerdict(result.question, QUESTIONS[result.question], word, "", sentence, rows)
    paper, decisive = paper_claims()[result.question], result.worst_first[0]
    if word == "inconclusive" and not math.isfinite(decisive.effect):
        sentence = "A part of the paper's claim was not measured, and no other part fails."
    if word != "holds" and isinstance(decisive.source, ClaimPart):
        sentence = f"{sentence} Decisive part: {decisive.source.statement}."
    # The first part is about the whole curve, so its row shows the difference of the whole curve.
    curves = tuple(
        f"minus the control {curve.control}: {curve_difference_text(curve, '+.3g')} (margin {curve.margin:g}"
        f"{_own_count(curve, result.claim.parts[0].n)})"
        for curve in result.claim.curve_differences
    )
    rows = (rows[0]._replace(differences=rows[0].differences + curves), *rows[1:])
    definition = f"{paper.statement} Tested as: {paper.tested_as}"
    return ExplainedVerdict(result.question, result.question, word, definition, sentence, rows)


def _row(part: Evidence, other: str) -> Row:
    """Return a part as a row with a sentence; rows on a phase show its change since the baseline."""
    name, effect, interval = part.title, part.effect, part.interval
    differences: tuple[str, ...] = ()
    match part.source:
        case ClaimPart(statement=statement) as claim:
            sentence, differences = (
                f"{_capitalised(statement)}.",
                tuple(_control_difference(difference, claim) for difference in claim.control_differences),
            )
        case Finding() as finding:
            sentence = _measure_sentence(finding, other)
        case NotCompared(reason=reason):
            return Row(name, part.verdict, "", "", "", "", f"{_capitalised(reason)}.")
        case BoundaryShift() as shift:
            name = f"phase {PHASES[shift.index - 1]} {_ENDS[shift.kind]}"
            effect = round_numbers(shift.measured) - round_numbers(shift.baseline)
            sentence = f"{_moved(effect)}: layer {shift.measured:.3g}, in {other} {shift.baseline:.3g}."
            if not math.isfinite(effect):
                sentence = "No such layer exists."
        case IntervalFinding() as phase:
            name = f"phase {PHASES[phase.phase - 1]} {_KINDS[phase.question]}"
            effect, interval = phase.change, phase.change_interval
            points = f"{phase.first}-{phase.last}"
            sentence = (
                f"{_phase_change(phase)} over residual points {points}: {phase.measured}, in {other} {phase.baseline}."
            )
            if phase.verdict is None:
                sentence += f" Inconclusive in {other}, so it is not compared."
    n = str(part.n) if part.paired is None else f"{part.n} {'paired' if part.paired else 'unpaired'}"
    # Rounded as in the record, so that the order does not depend on the last digit.
    excess = abs(round_numbers(effect)) / round_numbers(part.margin)
    excess = excess if math.isfinite(excess) else 0.0
    return Row(
        name, part.verdict, _signed(effect), _span(*interval), _plain(part.margin), n, sentence, differences, excess
    )


def _moved(effect: float) -> str:
    return "The same" if effect == 0.0 else "Later" if effect > 0.0 else "Earlier"


def _phase_change(phase: IntervalFinding) -> str:
    """Return the changed quantity of a phase, a rise or fall or reversal, and the direction of its change."""
    size = "Larger" if phase.change > 0.0 else "Smaller" if phase.change < 0.0 else "Same"
    quantity = "rise" if phase.direction > 0 else "fall"
    return f"{size} {quantity if phase.question == Question.PRESENCE else 'reversal'}"


def _measure_sentence(finding: Finding, other: str) -> str:
    agreement, where = finding.agreement, finding.measure.axis.describe(finding.indices)
    view = " of the shape (each sample minus its mean)" if agreement.mean.view == "shape" else ""
    samples = f"The samples are not those of {other}, so only means are compared."
    if agreement.largest is not None:
        largest = format_largest_change(finding)
        samples = f"{agreement.beyond_tolerance} samples changed by more than the tolerance; {largest}."
    match agreement.verdict:
        case "reproduces":
            if not agreement.largest:
                return "Every sample is identical, to the last digit."
            same = "Every sample is the same within the tolerance"
            changed = changed_samples_text(agreement) if agreement.beyond_tolerance else same
            return f"{changed}; {format_largest_change(finding)}."
        case "equivalent":
            return (
                f"Samples changed at {where}, but the mean is confirmed to be within the margin everywhere. {samples}"
            )
        case "differs":
            largest = f"{'higher' if agreement.mean.effect > 0.0 else 'lower'} by the most at {finding.worst_position}"
            return f"The mean change{view} is confirmed to exceed the margin at {where}; {largest}. {samples}"
        case _:
            return f"Inconclusive at {where}: the interval of the mean change{view} contains the margin. {samples}"


def _control_difference(difference: ControlDifference, part: ClaimPart) -> str:
    """Return the difference of a part to a control, with its sign as measured."""
    direction = part.direction
    remark = "" if difference.confirmed else ", not confirmed in the direction of the claim"
    control = "another sample's words" if difference.control == CHANCE else f"the control {difference.control}"
    low, high = sorted(direction * end for end in difference.interval)
    size = f"{_signed(direction * difference.effect)} ({_span(low, high)}{_own_count(difference, part.n)})"
    return f"{difference.quantity} minus {control}: {size}{remark}"


def _own_count(difference: ControlDifference | CurveDifference, n: int) -> str:
    """Return the number of independent rows of a difference as text, empty if the claim has as many."""
    return "" if difference.n == n else f", n = {difference.n}"


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _signed(value: float) -> str:
    return f"{round_numbers(value):+.3g}" if math.isfinite(value) else ""


def _plain(value: float) -> str:
    return _signed(value).removeprefix("+")


def _span(low: float, high: float) -> str:
    return f"{_signed(low)} to {_signed(high)}" if math.isfinite(low + high) else ""
