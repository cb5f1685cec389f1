"""Verdicts in sentences: every number of a verdict as a row, and the answers that a reader asks for first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from harness.analysis.agreement import Agreement
from harness.analysis.beyond import Beyond
from harness.analysis.boundary_agreement import BoundaryKind, BoundaryShift
from harness.analysis.claims import CHANCE, PHASES, ClaimPart
from harness.analysis.interval_agreement import IntervalFinding
from harness.analysis.turning_points import BoundaryInterval
from harness.judgement.paper import paper_claims
from harness.judgement.regression import Finding
from harness.judgement.results import Evidence, NotCompared, Result, largest_change
from harness.judgement.side_by_side import Trace
from harness.report.against import trace_line
from harness.report.controls_compared import curve_words
from harness.report.verdict_words import QUESTIONS, VERDICTS
from harness.storage.file_names import short_name
from harness.storage.json_text import rounded

_ENDS = {BoundaryKind.TURNING_POINT: "ends", BoundaryKind.HALF_HEIGHT: "is half done"}
_KINDS = {"presence": "is there", "monotonicity": "goes one way"}
_MOVES = 4


@dataclass(frozen=True, slots=True)
class Row:
    """One part of a verdict; numbers that do not apply are empty texts. `excess` is |effect| over the margin."""

    name: str
    verdict: str
    effect: str
    interval: str
    margin: str
    n: str
    sentence: str
    beyond: tuple[str, ...] = ()
    excess: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The verdict on one question, with its parts; `asked` says what the question is."""

    question: str
    title: str
    verdict: str
    asked: str
    sentence: str
    rows: tuple[Row, ...]


def answers(results: Iterable[Result], kind: str) -> list[Answer]:
    """The answers of one kind on one pair: claims in the order of the paper's phases, or the regression questions."""
    given = {result.question: result for result in results if result.kind == kind}
    questions = paper_claims() if kind == "replication" else QUESTIONS
    return [_answer(given[question]) for question in questions if question in given]


def note_lines(result: Result) -> list[str]:
    """Return what a reader must know beside the verdict on a family, one line for each measure concerned.

    These are the measures that reproduce although some samples changed, and those that could not be compared.
    """
    lines = []
    for part in result.parts:
        match part.source:
            case Finding(agreement=agreement) if part.word == "reproduces" and agreement.beyond:
                lines.append(f"{part.title}: {_tolerated(agreement)}")
            case NotCompared(reason=reason):
                lines.append(f"{part.title}: not compared, {reason}")
    return lines


def layers_of_ends(pair: Mapping[str, Any]) -> list[str]:
    """The layers at which phases I, II and III of a pair of the record end, with their intervals: '27 [21-27]'."""
    return [_layer(point) for point in pair["phases"]["turning_points"]]


def where_phases_end(pair: Mapping[str, Any]) -> str:
    """The layers that bound the phases of a pair of the record, in one sentence."""
    ends = zip(PHASES, layers_of_ends(pair), strict=False)
    sentence = _capitalised(", ".join(f"phase {name} ends at layer {layer}" for name, layer in ends))
    return f"{sentence}; phase IV is the rest of {pair['depth']} layers."


def how_sure(pair: Mapping[str, Any], results: Iterable[Result]) -> list[str]:
    """The certainty of the phases of a pair of the record: intervals, certified moves, claims, and controls alike."""
    phases = pair["phases"]
    moves = phases["certified_moves"]
    lines = [
        f"The layers in brackets are {phases['level']:.0%} intervals, from {pair['n']} samples; a layer without "
        "brackets is the same in all of them."
    ]
    at = f"{moves} alternating moves are certain at the declared prominence of {phases['prominence']:.3g}"
    if moves == _MOVES:
        lines.append(f"{at}, as many as four phases have.")
    else:
        what = "fewer" if moves < _MOVES else "more"
        lines.append(f"{at}, {what} than four phases have: the layers above are the best cut into four, not a proof.")
    claims = [result for result in sorted(results, key=attrgetter("question")) if result.kind == "replication"]
    if claims:
        told = [
            f"{word}: {', '.join(names)}"
            for word in ("holds", "fails", "inconclusive")
            if (names := [result.question for result in claims if result.word == word])
        ]
        lines.append(f"Of the paper's {len(claims)} claims - {'; '.join(told)}.")
    lines += [
        f"Under the control {control} the curve turns at layers {', '.join(map(str, found['turning_points']))}, and "
        f"{found['certified_moves']} of its moves are certain."
        for control, found in phases["controls"].items()
    ]
    return lines


def what_changed(pair: Mapping[str, Any], results: Sequence[Result]) -> list[str]:
    """The changes of a pair of the record since the baseline, or between two models: the worst first, with numbers."""
    regressions = answers(results, "regression")
    if not regressions:
        return ["No baseline was compared in this run."]
    baseline = pair["baseline"] or {}
    other = short_name(baseline.get("model") or "the baseline")
    given = f"Other than in {other}: {'; '.join(baseline['main_changes'])}." if baseline.get("changes") else ""
    changed = [answer for answer in regressions if answer.verdict != "reproduces"]
    notes = [f"{note}." for result in sorted(results, key=attrgetter("question")) for note in note_lines(result)]
    if not changed:
        same = "in the same environment" if baseline and not given else ""
        lines = [f"Nothing: {_titles(regressions)} reproduce {other}, sample by sample{', ' if same else ''}{same}."]
        lines += notes
        return [*lines, given] if given else lines
    lines = [given] if given else []
    lines += [trace_line(Trace(**trace)) for trace in baseline.get("same_until", {}).values()]
    for verdict in ("differs", "inconclusive", "equivalent"):
        lines += [_changed(answer) for answer in changed if answer.verdict == verdict]
    same_as_before = [answer for answer in regressions if answer.verdict == "reproduces"]
    if same_as_before:
        lines.append(f"The same as in {other}, sample by sample: {_titles(same_as_before)}.")
    return lines + notes


def _changed(answer: Answer) -> str:
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


def _answer(result: Result) -> Answer:
    word, rows = result.word, tuple(map(_row, result.parts))
    sentence = VERDICTS[word].meaning
    if result.claim is None:
        if word == "reproduces":
            # What is read off a curve that reproduces does so, however uncertain it is by itself.
            rows = tuple(replace(row, verdict=word) if row.verdict in VERDICTS else row for row in rows)
        sentence = f"{result.inputs}. {sentence}" if result.inputs else sentence
        return Answer(result.question, QUESTIONS[result.question], word, "", sentence, rows)
    paper, decisive = paper_claims()[result.question], result.worst_first[0]
    if word == "inconclusive" and not math.isfinite(decisive.effect):
        sentence = "A part of the paper's claim was not measured, and no other part fails."
    if word != "holds" and isinstance(decisive.source, ClaimPart):
        sentence = f"{sentence} Decisive is: {decisive.source.statement}."
    # What is beyond a control as a whole curve stands with the first part, which is about the whole curve.
    curves = tuple(
        f"beyond the control {curve.control}: {curve_words(curve, '+.3g')} (margin {curve.margin:g})"
        for curve in result.claim.curves_beyond
    )
    rows = (replace(rows[0], beyond=rows[0].beyond + curves), *rows[1:])
    asked = f"{paper.statement} Tested as: {paper.tested_as}"
    return Answer(result.question, result.question, word, asked, sentence, rows)


def _row(part: Evidence) -> Row:
    """A part with its sentence; what is said of a phase is said of its change since the baseline."""
    name, effect, interval = part.title, part.effect, part.interval
    beyond: tuple[str, ...] = ()
    match part.source:
        case ClaimPart(statement=statement) as claim:
            sentence, beyond = f"{_capitalised(statement)}.", tuple(map(_beyond, claim.beyond))
        case Finding() as finding:
            sentence = _measure_sentence(finding)
        case NotCompared(reason=reason):
            return Row(name, part.word, "", "", "", "", f"{_capitalised(reason)}.")
        case BoundaryShift() as shift:
            name = f"phase {PHASES[shift.index - 1]} {_ENDS[shift.kind]}"
            sentence = f"In the baseline at layer {shift.baseline:.3g}, now at {shift.now:.3g}."
            effect = rounded(shift.now) - rounded(shift.baseline)
            if not math.isfinite(effect):
                sentence = "There is no such layer."
        case IntervalFinding() as phase:
            name = f"phase {PHASES[phase.phase - 1]} {_KINDS[phase.question]}"
            effect, interval = phase.change, phase.change_interval
            points = f"{phase.first}-{phase.last}"
            sentence = f"Over residual points {points} of the baseline: was {phase.then}, is {phase.now}."
            if phase.verdict is None:
                sentence += " The baseline left it open, so nothing is held to it."
    n = str(part.n) if part.paired is None else f"{part.n} {'paired' if part.paired else 'unpaired'}"
    # Rounded as in the record, so that a last digit decides nothing.
    excess = abs(rounded(effect)) / rounded(part.margin)
    excess = excess if math.isfinite(excess) else 0.0
    return Row(name, part.word, _signed(effect), _span(*interval), _plain(part.margin), n, sentence, beyond, excess)


def _measure_sentence(finding: Finding) -> str:
    agreement, where = finding.agreement, finding.measure.axis.words(finding.indices)
    view = ", in shape" if agreement.mean.view == "shape" else ""
    moved = "The samples are not the baseline's, so means are compared."
    if agreement.largest is not None:
        moved = f"{agreement.beyond} samples moved by more than the tolerance; {largest_change(finding)}."
    match agreement.verdict:
        case "reproduces":
            if not agreement.largest:
                return "The same in every sample, to the last digit."
            same = "The same in every sample within the tolerance"
            return f"{_tolerated(agreement) if agreement.beyond else same}; {largest_change(finding)}."
        case "equivalent":
            return f"No longer the same at {where}, but the mean is certainly within the margin everywhere. {moved}"
        case "differs":
            most = f"most at {finding.worst_place}"
            return f"The mean certainly moved{view} by more than the margin at {where}; {most}. {moved}"
        case _:
            return f"Not decided{view} at {where}: the interval reaches across the margin. {moved}"


def _tolerated(agreement: Agreement) -> str:
    allowed = 100 * (1.0 - agreement.tolerance.share)
    return f"{agreement.beyond} of {agreement.compared} samples changed, and up to {allowed:.3g} % may"


def _beyond(beyond: Beyond) -> str:
    certain = "" if beyond.certain else ", not certain or not on the claim's side"
    control = "another sample's words" if beyond.control == CHANCE else f"the control {beyond.control}"
    return f"beyond {control}: {beyond.what} {_signed(beyond.effect)} ({_span(*beyond.interval)}){certain}"


def _titles(regressions: Sequence[Answer]) -> str:
    return ", ".join(QUESTIONS[answer.question] for answer in regressions)


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _layer(point: Sequence[float | None]) -> str:
    estimate, low, high = point
    if estimate is None or low is None or high is None:
        return "unknown"
    return f"{BoundaryInterval(estimate, low, high):g}"


def _signed(value: float) -> str:
    return f"{rounded(value):+.3g}" if math.isfinite(value) else ""


def _plain(value: float) -> str:
    return _signed(value).removeprefix("+")


def _span(low: float, high: float) -> str:
    return f"{_signed(low)} to {_signed(high)}" if math.isfinite(low + high) else ""
