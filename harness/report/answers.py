"""What a reader asks of a pair first, answered in sentences: where its phases end, how sure that is, what has changed.

The sentences say what the record holds and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.judgement.side_by_side import Trace
from harness.report.against import trace_line
from harness.report.meanings import QUESTIONS, Answer, note_lines, regression_answers
from harness.storage.file_names import short_name

_ENDS = ("I", "II", "III")
_MOVES = 4


def layers_of_ends(pair: Mapping[str, Any]) -> list[str]:
    """The layers at which phases I, II and III of a pair of the record end, with their intervals: '27 [21-27]'."""
    return [_layer(point) for point in pair["phases"]["turning_points"]]


def where_phases_end(pair: Mapping[str, Any]) -> str:
    """Which layers bound the phases of a pair of the record, in one sentence."""
    ends = zip(_ENDS, layers_of_ends(pair), strict=True)
    said = ", ".join(f"phase {name} ends at layer {layer}" for name, layer in ends)
    return f"{said[:1].upper()}{said[1:]}; phase IV is the rest of {pair['depth']} layers."


def how_sure(pair: Mapping[str, Any], verdicts: Sequence[Mapping[str, Any]]) -> list[str]:
    """How certain the phases of a pair are: intervals, certified moves, claims, and what a control does as well."""
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
    judged = {line["question"]: line["verdict"] for line in verdicts if line["kind"] == "replication"}
    if judged:
        told = [
            f"{verdict}: {', '.join(names)}"
            for verdict in ("holds", "fails", "inconclusive")
            if (names := [name for name, found in judged.items() if found == verdict])
        ]
        lines.append(f"Of the paper's {len(judged)} claims - {'; '.join(told)}.")
    lines += [
        f"Under the control {control} the curve turns at layers {', '.join(map(str, found['turning_points']))}, and "
        f"{found['certified_moves']} of its moves are certain."
        for control, found in phases["controls"].items()
    ]
    return lines


def what_changed(pair: Mapping[str, Any], verdicts: Sequence[Mapping[str, Any]]) -> list[str]:
    """What changed since the baseline, or between two models: the worst first, each with layers and numbers."""
    answers = regression_answers(verdicts)
    if not answers:
        return ["No baseline was compared in this run."]
    baseline = pair["baseline"] or {}
    other = short_name(baseline.get("model") or "the baseline")
    given = f"Other than in {other}: {'; '.join(baseline['main_changes'])}." if baseline.get("changes") else ""
    changed = [answer for answer in answers if answer.verdict != "reproduces"]
    notes = [f"{note}." for line in verdicts for note in note_lines(line["numbers"])]
    if not changed:
        same = "in the same environment" if baseline and not given else ""
        lines = [f"Nothing: {_said(answers)} reproduce {other}, sample by sample{', ' if same else ''}{same}."]
        lines += notes
        return [*lines, given] if given else lines
    lines = [given] if given else []
    lines += [trace_line(Trace(**trace)) for trace in baseline.get("same_until", {}).values()]
    for verdict in ("differs", "inconclusive", "equivalent"):
        lines += [_changed(answer) for answer in changed if answer.verdict == verdict]
    kept = [answer for answer in answers if answer.verdict == "reproduces"]
    if kept:
        lines.append(f"The same as in {other}, sample by sample: {_said(kept)}.")
    return lines + notes


def _changed(answer: Answer) -> str:
    """One question that was not answered with 'reproduces', by the part that is farthest from its margin."""
    decisive = [row for row in answer.rows if row.verdict == answer.verdict]
    said = f"{answer.title[:1].upper()}{answer.title[1:]}: {answer.verdict}"
    if not decisive:
        return f"{said}. {answer.sentence}"
    worst = max(decisive, key=lambda row: row.excess)
    also = len(decisive) - 1
    return (
        f"{said}. {worst.name}: {worst.effect} ({worst.interval}), margin {worst.margin}"
        f"{f', n = {worst.n}' if worst.n else ''}. {worst.sentence}"
        f"{f' So do {also} more of its {len(answer.rows)} numbers.' if also and answer.verdict == 'differs' else ''}"
    )


def _said(answers: Sequence[Answer]) -> str:
    return ", ".join(QUESTIONS[answer.question] for answer in answers)


def _layer(point: Sequence[float | None]) -> str:
    estimate, low, high = point
    if estimate is None or low is None or high is None:
        return "unknown"
    return f"{estimate:g}" if low == high else f"{estimate:g} [{low:g}-{high:g}]"
