"""The answer at the top of the page: what changed, which claims hold, and the same by pair for the table below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from harness.analysis.claims import CLAIMS, PHASES
from harness.judgement.results import Result
from harness.report.changes import PairChange, pair_change
from harness.report.outcomes import PairOutcome
from harness.storage.file_names import short_name

BASELINE = "the baseline"


class AnswerCell(NamedTuple):
    """A cell of the table of answers: the verdict that sets its sign, its words, and its colour class."""

    verdict: str
    words: str
    style: str


@dataclass(frozen=True, slots=True)
class PairAnswer:
    """The answer on a pair; `other` is "the baseline" or the model that it is compared with, empty without either.

    `versions` are those of the baseline. `against` is True if `other` is a model. `change` is None if nothing changed.
    `reference` maps claims to their verdicts if the pair is the one that others are compared with, else it is empty.
    """

    outcome: PairOutcome
    change: PairChange | None
    other: str
    versions: str
    against: bool
    reference: Mapping[str, str] = field(default_factory=dict)

    @property
    def since(self) -> str:
        """The end of a sentence on changes: `since its baseline of torch 2.15.0` or `against NAME`; may be empty."""
        if self.against:
            return f"against {self.other}"
        return f"since its baseline{_of(self.versions)}" if self.other else ""

    @property
    def unexpected(self) -> list[Result]:
        """The claims whose verdict fails a test."""
        return [result for result in self.outcome.unexpected() if result.kind == "replication"]

    @property
    def noteworthy(self) -> bool:
        """True if something changed or failed unexpectedly."""
        return self.change is not None or bool(self.unexpected)

    def claim(self, name: str) -> AnswerCell:
        """Return the cell of a claim."""
        result = self.outcome.claims.get(name)
        if result is None:
            verdict = self.reference.get(name, "")
            return AnswerCell(verdict, verdict or "not judged", "" if verdict else "faint")
        if name in self.outcome.opposite:
            return AnswerCell(result.verdict, f"{result.verdict}, unlike {self.other or 'the other model'}", "bad")
        if result in self.outcome.findings:
            return AnswerCell("fails", "fails (a finding)", "")
        unexpected = result in self.unexpected
        if result.verdict == "fails":
            return (
                AnswerCell("fails", "fails (not expected)", "bad")
                if unexpected
                else AnswerCell("fails", "fails as expected", "")
            )
        if result.verdict == "holds":
            return (
                AnswerCell("holds", "holds (not expected)", "bad")
                if unexpected
                else AnswerCell("holds", "holds", "good")
            )
        return AnswerCell(result.verdict, result.verdict, "open")

    def comparison(self) -> AnswerCell:
        """Return the cell of the comparison with the baseline or the other model."""
        verdicts = [result.verdict for result in self.outcome.regressions.values()]
        if not verdicts:
            return AnswerCell("", "the other model" if self.reference else "not compared", "faint")
        if self.change is not None:
            where = f" at layers {self.change.layers}" if self.change.layers else ""
            return AnswerCell("differs", f"{'differs' if self.against else 'changed'}{where}", "bad")
        if "inconclusive" in verdicts:
            return AnswerCell("inconclusive", f"{verdicts.count('inconclusive')} of {len(verdicts)} undecided", "open")
        if "equivalent" in verdicts:
            return AnswerCell("equivalent", "within the margins", "good")
        return AnswerCell("reproduces", "the same" if self.against else "nothing changed", "good")

    def phases(self) -> str:
        """Return how many of the four phases are confirmed."""
        confirmed = sum(self.outcome.reading.confirmed)
        if confirmed == len(PHASES):
            return "all 4 phases confirmed"
        return f"{confirmed} of 4 phases confirmed; the cut is a best guess"


class Headline(NamedTuple):
    """The answer of a run: the verdict that sets its sign, its colour class, a title, and the lines below it."""

    verdict: str
    style: str
    title: str
    lines: tuple[str, ...]


def pair_answer(
    outcome: PairOutcome, record: Mapping[str, Any], reference: Mapping[str, str] = MappingProxyType({})
) -> PairAnswer:
    """Return the answer on a pair.

    Args:
        outcome: the outcome of the pair.
        record: the record of the pair, which names what it is compared with.
        reference: the verdicts by claim of the pair that others are compared with.
    """
    baseline = record["baseline"] if outcome.regressions else None
    if baseline is None:
        return PairAnswer(outcome, None, "", "", against=False, reference=reference)
    model, environment = baseline.get("model"), baseline["environment"]
    versions = f"transformers {environment['transformers']}, torch {environment['torch']}"
    other = short_name(model) if model else BASELINE
    return PairAnswer(outcome, pair_change(outcome), other, versions, against=bool(model))


def headline(answers: Sequence[PairAnswer], undecided: str) -> Headline:
    """Return the answer of a run.

    Args:
        answers: the answers on its pairs.
        undecided: the reason why the run as a whole is inconclusive; empty if it is not.
    """
    changed = [answer for answer in answers if answer.change is not None]
    names = [
        f"{result.question} {result.verdict} for {answer.outcome.name}"
        for answer in answers
        for result in answer.unexpected
    ]
    lines = [_claims_line(answers)]
    if undecided:
        lines.append(f"Undecided: {undecided}.")
    if changed:
        lines = [f"Not expected: {'; '.join(names)}."] * bool(names) + lines
        return Headline("differs", "bad", _changed_title(changed), (*_change_lines(changed, answers), *lines))
    if names:
        title = f"FAILED: {'; '.join(names)}, which was not expected"
        return Headline("fails", "bad", title, (f"{_same_title(answers)}.", *lines))
    compared = [cell for answer in answers if (cell := answer.comparison()).verdict]
    if undecided or any(cell.style == "open" for cell in compared):
        return Headline("inconclusive", "open", f"{_same_title(answers)}, but not everything is decided", tuple(lines))
    if not compared:
        return Headline("", "", _same_title(answers), tuple(lines))
    return Headline("reproduces", "good", _same_title(answers), tuple(lines))


def _changed_title(changed: Sequence[PairAnswer]) -> str:
    word = "DIFFERENT" if all(answer.against for answer in changed) else "CHANGED"
    if len(changed) > 1:
        return f"{word}: {len(changed)} pairs"
    (answer,) = changed
    assert answer.change is not None
    where = answer.change.first_changed or answer.comparison().words
    against = f" {answer.since}" if answer.against else ""
    return f"{word}: {answer.outcome.name}{against}, {where}"


def _change_lines(changed: Sequence[PairAnswer], answers: Sequence[PairAnswer]) -> list[str]:
    lines = []
    for answer in changed:
        assert answer.change is not None
        where = answer.change.first_changed or answer.comparison().words
        head = f"{answer.outcome.name} {answer.since}: {where}. " if len(changed) > 1 else ""
        label = "They differ in" if answer.against else "Cause"
        lines.append(f"{head}{label}: {answer.change.cause}." if answer.change.cause else head.strip())
    others = [answer for answer in answers if answer.change is None and answer.other]
    return [*filter(None, lines), *([f"{_same_title(others)}."] if others else [])]


def _same_title(answers: Sequence[PairAnswer]) -> str:
    """Return a title for pairs that did not change."""
    compared = [answer for answer in answers if answer.other]
    others = len(answers) - len(compared)
    if not compared:
        names = answers[0].outcome.name if len(answers) == 1 else f"{len(answers)} pairs"
        return f"{names}: measured, not compared with a baseline"
    words = "nothing changed" if not any(answer.against for answer in compared) else "no difference confirmed"
    if any(answer.comparison().style == "open" for answer in compared):
        words = "no change is confirmed"
    elif any(answer.comparison().verdict == "equivalent" for answer in compared):
        words = "nothing changed beyond the margins"
    if len(compared) == 1:
        text = f"{compared[0].outcome.name}: {words} {compared[0].since}"
    elif any(answer.against for answer in compared):
        text = f"{len(compared)} pairs: {words} against the other model"
    else:
        versions = {answer.versions for answer in compared}
        of = _of(versions.pop()) if len(versions) == 1 else ""
        text = f"{len(compared)} pairs: {words} since their baselines{of}"
    return f"{text}; {others} more without baseline" if others else text


def _claims_line(answers: Sequence[PairAnswer]) -> str:
    cells = [answer.claim(name) for answer in answers for name in answer.outcome.claims if name in CLAIMS]
    if not cells:
        return "The paper's claims were not judged."
    words = [cell.words for cell in cells]
    pairs = sum(bool(answer.outcome.claims) for answer in answers)
    of = f"Of the paper's {len(CLAIMS)} claims" + (f" on each of {pairs} pairs" if pairs > 1 else "")
    if len(cells) != pairs * len(CLAIMS):
        of = f"Of {len(cells)} claims of the paper"
    counted = sorted(dict.fromkeys(words), key=lambda word: word != "holds")
    return f"{of}: {', '.join(f'{words.count(word)} {_plural(word, words.count(word))}' for word in counted)}."


def _plural(words: str, count: int) -> str:
    return words if count == 1 else words.replace("holds", "hold").replace("fails", "fail")


def _of(versions: str) -> str:
    return f" of {versions}" if versions else ""
