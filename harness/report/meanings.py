"""Verdicts in sentences: every number of a verdict as a row, and the answers that a reader asks for first."""

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
from harness.judgement.results import Evidence, NotCompared, Result, largest_change
from harness.judgement.side_by_side import traces_of
from harness.report.against import trace_line
from harness.report.controls_compared import curve_difference_text
from harness.report.outcomes import PairOutcome, changed_samples_text, note_lines
from harness.report.verdict_words import QUESTIONS, VERDICTS
from harness.storage.file_names import short_name
from harness.storage.json_text import round_numbers

_ENDS = {BoundaryKind.TURNING_POINT: "ends", BoundaryKind.HALF_HEIGHT: "is half done"}
_KINDS = {"presence": "is there", "monotonicity": "goes one way"}
_SEGMENTS = 4


class Row(NamedTuple):
    """One part of a verdict; numbers that do not apply are empty texts. `excess` is |effect| over the margin."""

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
    """The verdict on one question, with its parts; `definition` says what the question is."""

    question: str
    title: str
    verdict: str
    definition: str
    sentence: str
    rows: tuple[Row, ...]


def boundary_sentence(outcome: PairOutcome) -> str:
    """Return the layers that bound the phases of a pair, in one sentence."""
    ends = zip(PHASES, outcome.ends, strict=False)
    sentence = _capitalised(", ".join(f"phase {name} ends at layer {layer:g}" for name, layer in ends))
    return f"{sentence}; phase IV is the rest of {outcome.profile.depth} layers."


def certainty_sentences(outcome: PairOutcome, controls: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the certainty of the phases of a pair: intervals, certified moves, claims, and controls alike.

    Args:
        outcome: of the pair.
        controls: the phases under each control, as `phases_of` tells them.
    """
    reading, segments = outcome.reading, outcome.reading.any_segments.count
    lines = [
        f"The layers in brackets are {reading.boundaries.level:.0%} intervals, from {outcome.profile.n} samples; a "
        "layer without brackets is the same in all of them."
    ]
    prominence = round_numbers(declared_prominence(reading.summary.mean))
    at = f"{segments} alternating monotone segments are confirmed at the declared prominence of {prominence:.3g}"
    if segments == _SEGMENTS:
        lines.append(f"{at}, as many as four phases have.")
    else:
        relation = "fewer" if segments < _SEGMENTS else "more"
        lines.append(
            f"{at}, {relation} than four phases have: the layers above are the best cut into four, not a proof."
        )
    if outcome.claims:
        verdicts = [
            f"{word}: {', '.join(names)}"
            for word in ("holds", "fails", "inconclusive")
            if (names := [name for name, claim in sorted(outcome.claims.items()) if claim.word == word])
        ]
        lines.append(f"Of the paper's {len(outcome.claims)} claims - {'; '.join(verdicts)}.")
    lines += [
        f"Under the control {control} the curve turns at layers {', '.join(map(str, phases['turning_points']))}, and "
        f"{phases['confirmed_segment_count']} of its segments are confirmed."
        for control, phases in controls.items()
    ]
    return lines


def change_sentences(outcome: PairOutcome) -> list[str]:
    """Return the changes of a pair since the baseline, or between two models: the worst first, with numbers."""
    baseline, profile = outcome.baseline, outcome.profile
    if baseline is None:
        return ["No baseline was compared in this run."]
    regressions = list(map(explain_verdict, outcome.regressions.values()))
    other = short_name(baseline.record_source.get("model", "the baseline"))
    main = "; ".join(profile.main_changes(baseline.profile))
    environment = f"Other than in {other}: {main}." if profile.changes(baseline.profile) else ""
    changed = [answer for answer in regressions if answer.verdict != "reproduces"]
    notes = [f"{note}." for _, result in sorted(outcome.regressions.items()) for note in note_lines(result)]
    if not changed:
        same = "" if environment else ", in the same environment"
        lines = [f"Nothing: {_titles(regressions)} reproduce {other}, sample by sample{same}.", *notes]
        return [*lines, environment] if environment else lines
    lines = [environment] if environment else []
    lines += map(trace_line, traces_of(profile, baseline))
    for verdict in ("differs", "inconclusive", "equivalent"):
        lines += [_changed(answer) for answer in changed if answer.verdict == verdict]
    same_as_before = [answer for answer in regressions if answer.verdict == "reproduces"]
    if same_as_before:
        lines.append(f"The same as in {other}, sample by sample: {_titles(same_as_before)}.")
    return lines + notes


def _changed(answer: ExplainedVerdict) -> str:
    """One question that was not answered with 'reproduces', by the part that is farthest from its margin."""
    decisive = [row for row in answer.rows if row.verdict == answer.verdict]
    head = f"{_capitalised(answer.title)}: {answer.verdict}"
    if not decisive:
        return f"{head}. {answer.sentence}"
    worst = max(decisive, key=lambda row: row.excess)
    also = len(decisive) - 1
    return (
        f"{head}. {worst.name}: {worst.effect} ({worst.interval}), margin {worst.margin}"
        f"{f', n = {worst.n}' if worst.n else ''}. {worst.sentence}"
        f"{f' So do {also} more of its {len(answer.rows)} numbers.' if also and answer.verdict == 'differs' else ''}"
    )


def explain_verdict(result: Result) -> ExplainedVerdict:
    """Return the verdict on a claim or a regression question in sentences."""
    word, rows = result.word, tuple(map(_row, result.parts))
    sentence = VERDICTS[word].meaning
    if result.claim is None:
        if word == "reproduces":
            # What is read off a curve that reproduces does so, however uncertain it is by itself.
            rows = tuple(row._replace(verdict=word) if row.verdict in VERDICTS else row for row in rows)
        sentence = f"{result.inputs}. {sentence}" if result.inputs else sentence
        return ExplainedVerdict(result.question, QUESTIONS[result.question], word, "", sentence, rows)
    paper, decisive = paper_claims()[result.question], result.worst_first[0]
    if word == "inconclusive" and not math.isfinite(decisive.effect):
        sentence = "A part of the paper's claim was not measured, and no other part fails."
    if word != "holds" and isinstance(decisive.source, ClaimPart):
        sentence = f"{sentence} Decisive is: {decisive.source.statement}."
    # The difference of the whole curve is shown with the first part, which is about the whole curve.
    curves = tuple(
        f"difference to the control {curve.control}: {curve_difference_text(curve, '+.3g')} (margin {curve.margin:g})"
        for curve in result.claim.curve_differences
    )
    rows = (rows[0]._replace(differences=rows[0].differences + curves), *rows[1:])
    asked = f"{paper.statement} Tested as: {paper.tested_as}"
    return ExplainedVerdict(result.question, result.question, word, asked, sentence, rows)


def _row(part: Evidence) -> Row:
    """Return a part with its sentence; what is said of a phase is said of its change since the baseline."""
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
            return Row(name, part.word, "", "", "", "", f"{_capitalised(reason)}.")
        case BoundaryShift() as shift:
            name = f"phase {PHASES[shift.index - 1]} {_ENDS[shift.kind]}"
            sentence = f"In the baseline at layer {shift.baseline:.3g}, now at {shift.measured:.3g}."
            effect = round_numbers(shift.measured) - round_numbers(shift.baseline)
            if not math.isfinite(effect):
                sentence = "There is no such layer."
        case IntervalFinding() as phase:
            name = f"phase {PHASES[phase.phase - 1]} {_KINDS[phase.question]}"
            effect, interval = phase.change, phase.change_interval
            points = f"{phase.first}-{phase.last}"
            sentence = f"Over residual points {points} of the baseline: was {phase.baseline}, is {phase.measured}."
            if phase.verdict is None:
                sentence += " The baseline left it open, so nothing is held to it."
    n = str(part.n) if part.paired is None else f"{part.n} {'paired' if part.paired else 'unpaired'}"
    # Rounded as in the record, so that a last digit decides nothing.
    excess = abs(round_numbers(effect)) / round_numbers(part.margin)
    excess = excess if math.isfinite(excess) else 0.0
    return Row(
        name, part.word, _signed(effect), _span(*interval), _plain(part.margin), n, sentence, differences, excess
    )


def _measure_sentence(finding: Finding) -> str:
    agreement, where = finding.agreement, finding.measure.axis.describe(finding.indices)
    view = ", in shape" if agreement.mean.view == "shape" else ""
    moved = "The samples are not the baseline's, so means are compared."
    if agreement.largest is not None:
        moved = f"{agreement.beyond_tolerance} samples moved by more than the tolerance; {largest_change(finding)}."
    match agreement.verdict:
        case "reproduces":
            if not agreement.largest:
                return "The same in every sample, to the last digit."
            same = "The same in every sample within the tolerance"
            return (
                f"{changed_samples_text(agreement) if agreement.beyond_tolerance else same}; {largest_change(finding)}."
            )
        case "equivalent":
            return f"No longer the same at {where}, but the mean is certainly within the margin everywhere. {moved}"
        case "differs":
            most = f"most at {finding.worst_place}"
            return f"The mean certainly moved{view} by more than the margin at {where}; {most}. {moved}"
        case _:
            return f"Not decided{view} at {where}: the interval reaches across the margin. {moved}"


def _control_difference(difference: ControlDifference) -> str:
    certain = "" if difference.confirmed else ", not confirmed or not on the claim's side"
    control = "another sample's words" if difference.control == CHANCE else f"the control {difference.control}"
    size = f"{_signed(difference.effect)} ({_span(*difference.interval)})"
    return f"difference to {control}: {difference.quantity} {size}{certain}"


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
