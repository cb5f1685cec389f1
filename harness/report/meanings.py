"""Verdicts explained in sentences: each number of a verdict as a row, and the answers at the top of the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from harness.analysis.boundary_agreement import BoundaryKind, BoundaryShift
from harness.analysis.claims import CHANCE, PHASES, ClaimPart
from harness.analysis.control_difference import ControlDifference
from harness.analysis.interval_agreement import IntervalFinding
from harness.analysis.segments import declared_prominence
from harness.judgement.paper import paper_claims
from harness.judgement.regression import Finding
from harness.judgement.results import Evidence, NotCompared, Result, format_largest_change
from harness.judgement.side_by_side import reading_traces
from harness.report.against import trace_line
from harness.report.controls_compared import curve_difference_text
from harness.report.outcomes import PairOutcome, changed_samples_text, note_lines
from harness.report.verdict_words import QUESTIONS, VERDICTS
from harness.storage.file_names import short_name
from harness.storage.json_text import round_numbers

_ENDS = {BoundaryKind.TURNING_POINT: "ends", BoundaryKind.HALF_HEIGHT: "reaches half-height"}
_KINDS = {"presence": "is present", "monotonicity": "is monotone"}
_SEGMENTS = 4


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


def certainty_sentences(outcome: PairOutcome, controls: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return sentences on the evidence for the phases of a pair: intervals, segments, claims, and controls.

    Args:
        outcome: the outcome of the pair.
        controls: the phases under each control, in the format of `phases_of`.
    """
    reading, segments = outcome.reading, outcome.reading.any_segments.count
    lines = [
        f"The layers in brackets are {reading.boundaries.level:.0%} intervals, from {outcome.profile.n} samples; a "
        "layer without brackets has an interval of one layer."
    ]
    prominence = round_numbers(declared_prominence(reading.summary.mean))
    count = f"{segments} alternating monotone segments are confirmed at the declared prominence of {prominence:.3g}"
    if segments == _SEGMENTS:
        lines.append(f"{count}, the number that four phases require.")
    else:
        relation = "fewer" if segments < _SEGMENTS else "more"
        lines.append(
            f"{count}, {relation} than four phases require. The layers above are the best "
            "fit of four phases, not evidence for them."
        )
    if outcome.claims:
        verdicts = [
            f"{word}: {', '.join(names)}"
            for word in ("holds", "fails", "inconclusive")
            if (names := [name for name, claim in sorted(outcome.claims.items()) if claim.verdict == word])
        ]
        lines.append(f"The paper's {len(outcome.claims)} claims: {'; '.join(verdicts)}.")
    lines += [
        f"Under the control {control} the curve turns at layers {', '.join(map(str, phases['turning_points']))}, and "
        f"{phases['confirmed_segment_count']} of its segments are confirmed."
        for control, phases in controls.items()
    ]
    return lines


def change_sentences(outcome: PairOutcome) -> list[str]:
    """Return sentences on the changes since the baseline, or between two models: the worst first, with numbers."""
    baseline, profile = outcome.baseline, outcome.profile
    if baseline is None:
        return ["No baseline was compared in this run."]
    regressions = list(map(explain_verdict, outcome.regressions.values()))
    other = short_name(baseline.record_source.get("model", "the baseline"))
    main = "; ".join(profile.main_changes(baseline.profile))
    environment = f"Differences to {other}: {main}." if profile.changes(baseline.profile) else ""
    changed = [answer for answer in regressions if answer.verdict != "reproduces"]
    notes = [f"{note}." for _, result in sorted(outcome.regressions.items()) for note in note_lines(result)]
    if not changed:
        same = "" if environment else ", in the same environment"
        lines = [f"Nothing: {_titles(regressions)} reproduce {other}, sample by sample{same}.", *notes]
        return [*lines, environment] if environment else lines
    lines = [environment] if environment else []
    lines += map(trace_line, reading_traces(profile, baseline))
    for verdict in ("differs", "inconclusive", "equivalent"):
        lines += [_changed(answer) for answer in changed if answer.verdict == verdict]
    same_as_before = [answer for answer in regressions if answer.verdict == "reproduces"]
    if same_as_before:
        lines.append(f"The same as in {other}, sample by sample: {_titles(same_as_before)}.")
    return lines + notes


def _changed(answer: ExplainedVerdict) -> str:
    """Return a sentence on a question that does not reproduce, with the part that exceeds its margin the most."""
    decisive = [row for row in answer.rows if row.verdict == answer.verdict]
    head = f"{_capitalised(answer.title)}: {answer.verdict}"
    if not decisive:
        return f"{head}. {answer.sentence}"
    worst = max(decisive, key=lambda row: row.excess)
    further = len(decisive) - 1 if answer.verdict == "differs" else 0
    others = f" The same applies to {further} more of its {len(answer.rows)} numbers." if further else ""
    return (
        f"{head}. {worst.name}: {worst.effect} ({worst.interval}), margin {worst.margin}"
        f"{f', n = {worst.n}' if worst.n else ''}. {worst.sentence}{others}"
    )


def explain_verdict(result: Result) -> ExplainedVerdict:
    """Return the verdict on a claim or a regression question in sentences."""
    word, rows = result.verdict, tuple(map(_row, result.parts))
    sentence = VERDICTS[word].meaning
    if result.claim is None:
        if word == "reproduces":
            # Boundaries and intervals are computed from the curve, so they reproduce if it does.
            rows = tuple(row._replace(verdict=word) if row.verdict in VERDICTS else row for row in rows)
        sentence = f"{result.inputs}. {sentence}" if result.inputs else sentence
        return ExplainedVerdict(result.question, QUESTIONS[result.question], word, "", sentence, rows)
    paper, decisive = paper_claims()[result.question], result.worst_first[0]
    if word == "inconclusive" and not math.isfinite(decisive.effect):
        sentence = "A part of the paper's claim was not measured, and no other part fails."
    if word != "holds" and isinstance(decisive.source, ClaimPart):
        sentence = f"{sentence} Decisive part: {decisive.source.statement}."
    # The first part is about the whole curve, so its row shows the difference of the whole curve.
    curves = tuple(
        f"difference to the control {curve.control}: {curve_difference_text(curve, '+.3g')} (margin {curve.margin:g})"
        for curve in result.claim.curve_differences
    )
    rows = (rows[0]._replace(differences=rows[0].differences + curves), *rows[1:])
    definition = f"{paper.statement} Tested as: {paper.tested_as}"
    return ExplainedVerdict(result.question, result.question, word, definition, sentence, rows)


def _row(part: Evidence) -> Row:
    """Return a part as a row with a sentence; rows on a phase show its change since the baseline."""
    name, effect, interval = part.title, part.effect, part.interval
    differences: tuple[str, ...] = ()
    match part.source:
        case ClaimPart(statement=statement) as claim:
            sentence, differences = (
                f"{_capitalised(statement)}.",
                tuple(map(_control_difference, claim.control_differences)),
            )
        case Finding() as finding:
            sentence = _measure_sentence(finding)
        case NotCompared(reason=reason):
            return Row(name, part.verdict, "", "", "", "", f"{_capitalised(reason)}.")
        case BoundaryShift() as shift:
            name = f"phase {PHASES[shift.index - 1]} {_ENDS[shift.kind]}"
            sentence = f"Layer {shift.baseline:.3g} in the baseline, {shift.measured:.3g} in this run."
            effect = round_numbers(shift.measured) - round_numbers(shift.baseline)
            if not math.isfinite(effect):
                sentence = "No such layer exists."
        case IntervalFinding() as phase:
            name = f"phase {PHASES[phase.phase - 1]} {_KINDS[phase.question]}"
            effect, interval = phase.change, phase.change_interval
            points = f"{phase.first}-{phase.last}"
            sentence = f"Over residual points {points}: {phase.baseline} in the baseline, {phase.measured} in this run."
            if phase.verdict is None:
                sentence += " The baseline is inconclusive, so it is not compared."
    n = str(part.n) if part.paired is None else f"{part.n} {'paired' if part.paired else 'unpaired'}"
    # Rounded as in the record, so that the order does not depend on the last digit.
    excess = abs(round_numbers(effect)) / round_numbers(part.margin)
    excess = excess if math.isfinite(excess) else 0.0
    return Row(
        name, part.verdict, _signed(effect), _span(*interval), _plain(part.margin), n, sentence, differences, excess
    )


def _measure_sentence(finding: Finding) -> str:
    agreement, where = finding.agreement, finding.measure.axis.describe(finding.indices)
    view = " of the shape (each sample minus its mean)" if agreement.mean.view == "shape" else ""
    samples = "The samples differ from the baseline's, so only means are compared."
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
            largest = f"largest at {finding.worst_position}"
            return f"The mean change{view} is confirmed to exceed the margin at {where}; {largest}. {samples}"
        case _:
            return f"Inconclusive at {where}: the interval of the mean change{view} contains the margin. {samples}"


def _control_difference(difference: ControlDifference) -> str:
    remark = "" if difference.confirmed else ", not confirmed in the direction of the claim"
    control = "another sample's words" if difference.control == CHANCE else f"the control {difference.control}"
    size = f"{_signed(difference.effect)} ({_span(*difference.interval)})"
    return f"difference to {control}: {difference.quantity} {size}{remark}"


def _titles(regressions: Sequence[ExplainedVerdict]) -> str:
    return ", ".join(QUESTIONS[answer.question] for answer in regressions)


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _signed(value: float) -> str:
    return f"{round_numbers(value):+.3g}" if math.isfinite(value) else ""


def _plain(value: float) -> str:
    return _signed(value).removeprefix("+")


def _span(low: float, high: float) -> str:
    return f"{_signed(low)} to {_signed(high)}" if math.isfinite(low + high) else ""
