"""Every verdict of a record as a row for its readers: effect, interval, margin, n, and a sentence on what it means.

All of it is read off the record, so that a page and the JSON beside it say the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from harness.judgement.evidence import largest_change
from harness.judgement.paper import paper_claims
from harness.profile.measures import FAMILIES, MEASURES, Measure, layer_ranges

#: What each word means, whatever it is said of.
VERDICTS: Mapping[str, str] = MappingProxyType(
    {
        "holds": "The paper's claim holds for this model on this data; every part of it is certain.",
        "fails": "A part of the paper's claim is certainly not so for this model on this data.",
        "reproduces": "The same numbers as the baseline, sample by sample, within the tolerance.",
        "equivalent": "No longer the same sample by sample, but the mean is certainly within the margin everywhere.",
        "differs": "The mean certainly moved by more than the margin at some layer, all layers considered together.",
        "inconclusive": "The samples do not decide; more of them would.",
    }
)
QUESTIONS: Mapping[str, str] = MappingProxyType(
    {name: family.title for name, family in FAMILIES.items()}
    | {"boundaries": "layers that separate the phases", "intervals": "what holds within each phase"}
)
_KINDS = {"presence": "is there", "monotonicity": "goes one way"}


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


def claim_answers(verdicts: Sequence[Mapping[str, Any]]) -> list[Answer]:
    """The claims of one pair, in the order of the paper's phases, of the record's verdicts on it."""
    by_name = {line["question"]: line for line in verdicts if line["kind"] == "replication"}
    return [
        _claim(by_name[name], claim.statement, claim.tested_as)
        for name, claim in paper_claims().items()
        if name in by_name
    ]


def regression_answers(verdicts: Sequence[Mapping[str, Any]]) -> list[Answer]:
    """The regression questions of one pair, in the order of the cases, of the record's verdicts on it."""
    by_name = {line["question"]: line for line in verdicts if line["kind"] == "regression"}
    return [_regression(by_name[name], title) for name, title in QUESTIONS.items() if name in by_name]


def _claim(line: Mapping[str, Any], statement: str, tested_as: str) -> Answer:
    numbers = line["numbers"]
    decisive = next(part for part in numbers["parts"] if part["name"] == numbers["decisive"])
    said = VERDICTS[line["verdict"]]
    if line["verdict"] == "inconclusive" and decisive["effect"] is None:
        said = "A part of the paper's claim was not measured, and no other part fails."
    if line["verdict"] != "holds":
        said = f"{said} Decisive is: {decisive['statement']}."
    curves = tuple(_curve_beyond(control, found) for control, found in numbers["curves_beyond"].items())
    rows = tuple(
        Row(
            part["name"],
            part["verdict"],
            *_numbers(part),
            str(part["n"]),
            f"{part['statement'][:1].upper()}{part['statement'][1:]}.",
            # What is beyond a control as a whole curve stands with the first part, which is about the whole curve.
            (*map(_beyond, part["beyond"]), *(curves if place == 0 else ())),
        )
        for place, part in enumerate(numbers["parts"])
    )
    name = line["question"]
    return Answer(name, name, line["verdict"], f"{statement} Tested as: {tested_as}", said, rows)


def _beyond(beyond: Mapping[str, Any]) -> str:
    low, high = beyond["interval"]
    certain = "" if beyond["certain"] else ", not certain or not on the claim's side"
    what = "another sample's words" if beyond["control"] == "chance" else f"the control {beyond['control']}"
    return f"beyond {what}: {beyond['what']} {_signed(beyond['effect'])} ({_span(low, high)}){certain}"


def _curve_beyond(control: str, found: Mapping[str, Any]) -> str:
    parts = [
        f"{_signed(found[size])} at layers {layer_ranges(found[side])}"
        for side, size in (("above", "highest"), ("below", "lowest"))
        if found[side]
    ]
    return f"beyond the control {control}: {', '.join(parts) or 'nothing'} (margin {found['margin']:g})"


def _regression(line: Mapping[str, Any], title: str) -> Answer:
    numbers, question = line["numbers"], line["question"]
    rows = tuple(_ROWS.get(question, _measures)(numbers))
    if line["verdict"] == "reproduces":
        # What is read off a curve that reproduces does so, however uncertain it is by itself.
        rows = tuple(replace(row, verdict="reproduces") if row.verdict in VERDICTS else row for row in rows)
    said = VERDICTS[line["verdict"]]
    inputs = numbers.get("inputs")
    if isinstance(inputs, Mapping):
        said = f"{inputs['changed']}. {said}"
    return Answer(question, title, line["verdict"], "", said, rows)


def _measures(numbers: Mapping[str, Any]) -> Iterator[Row]:
    for name, found in numbers.items():
        if name in MEASURES and isinstance(found, Mapping):
            measure = MEASURES[name]
            sentence, excess = _measure_sentence(measure, found), _excess(found["effect"], found["margin"])
            yield Row(measure.title, found["verdict"], *_numbers(found), _n(found), sentence, excess=excess)
    for name, reason in numbers.get("not_compared", {}).items():
        yield Row(MEASURES[name].title, "not asked", "", "", "", "", f"{reason[:1].upper()}{reason[1:]}.")


def _measure_sentence(measure: Measure, found: Mapping[str, Any]) -> str:
    where = measure.axis.words(found["layers"] or (found["layer"],))
    view = ", in shape" if found["view"] == "shape" else ""
    largest = found["largest"]
    moved = "The samples are not the baseline's, so means are compared."
    if largest is not None:
        moved = f"{found['beyond']} samples moved by more than the tolerance; {_largest(found)}."
    match found["verdict"]:
        case "reproduces":
            if not largest:
                return "The same in every sample, to the last digit."
            if found["beyond"]:
                return f"{_tolerated(found)}; {_largest(found)}."
            return f"The same in every sample within the tolerance; {_largest(found)}."
        case "equivalent":
            return f"No longer the same at {where}, but the mean is certainly within the margin everywhere. {moved}"
        case "differs":
            at = found["layer"] + measure.axis.first
            return f"The mean certainly moved{view} by more than the margin at {where}; most at {at}. {moved}"
        case _:
            return f"Not decided{view} at {where}: the interval reaches across the margin. {moved}"


def _largest(found: Mapping[str, Any]) -> str:
    return largest_change(found["largest"], found["tolerance"]["noise"])


def note_lines(numbers: Mapping[str, Any]) -> list[str]:
    """Return what a reader must know beside the verdict on a family, one line for each measure concerned.

    These are the measures that reproduce although some samples changed, and those that could not be compared.

    Args:
        numbers: of the family's verdict, as the record has them.
    """
    tolerated = [
        f"{measure.title}: {_tolerated(found)}"
        for name, measure in MEASURES.items()
        if isinstance(found := numbers.get(name), Mapping) and found["verdict"] == "reproduces" and found["beyond"]
    ]
    reasons: Mapping[str, str] = numbers.get("not_compared", {})
    return tolerated + [f"{MEASURES[name].title}: not compared, {reason}" for name, reason in reasons.items()]


def _tolerated(found: Mapping[str, Any]) -> str:
    allowed = 100 * (1.0 - found["tolerance"]["share"])
    return f"{found['beyond']} of {found['compared']} samples changed, and up to {allowed:.3g} % may"


def _boundaries(numbers: Mapping[str, Any]) -> Iterator[Row]:
    for name, found in numbers.items():
        kind, number = name.rsplit(" ", 1)
        phase = _PHASES[int(number) - 1]
        what = f"phase {phase} {'ends' if kind == 'turning point' else 'is half done'}"
        now, before = found["now"], found["baseline"]
        effect, sentence, excess = "", "There is no such layer.", 0.0
        if now is not None and before is not None:
            effect, excess = _signed(now - before), _excess(now - before, found["margin"])
            sentence = f"In the baseline at layer {before:.3g}, now at {now:.3g}."
        span, margin = _span(*found["interval"]), _plain(found["margin"])
        yield Row(what, found["verdict"], effect, span, margin, _n(found), sentence, excess=excess)


def _intervals(numbers: Mapping[str, Any]) -> Iterator[Row]:
    for name, found in numbers.items():
        _, number, question = name.split(" ")
        first, last = found["layers"]
        verdict = found["verdict"] or "not asked"
        sentence = f"Over residual points {first}-{last} of the baseline: was {found['then']}, is {found['now']}."
        if found["verdict"] is None:
            sentence += " The baseline left it open, so nothing is held to it."
        yield Row(
            f"phase {_PHASES[int(number) - 1]} {_KINDS.get(question, question)}", verdict, _signed(found["change"]),
            _span(*found["change_interval"]), _plain(found["margin"]), str(found["n"]), sentence,
            excess=_excess(found["change"], found["margin"]),
        )  # fmt: skip


_PHASES = ("I", "II", "III", "IV")
_ROWS = {"boundaries": _boundaries, "intervals": _intervals}


def _numbers(found: Mapping[str, Any]) -> tuple[str, str, str]:
    return _signed(found["effect"]), _span(*found["interval"]), _plain(found["margin"])


def _excess(effect: float | None, margin: float | None) -> float:
    return abs(effect) / margin if effect is not None and margin else 0.0


def _n(found: Mapping[str, Any]) -> str:
    return f"{found['n']} {'paired' if found['paired'] else 'unpaired'}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.3g}"


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _span(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:+.3g} to {high:+.3g}"
