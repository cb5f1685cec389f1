"""The last words of a run: its outcome in one sentence, and the changed pairs for pytest's own last line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.report.changes import PairChange
from harness.report.layout import Line, fold_lines
from harness.report.outcomes import PairOutcome
from harness.report.summary import changed_pairs, command_lines
from harness.report.verdict_words import BAD, GOOD, OPEN
from harness.run.session_results import SessionResults
from harness.storage.file_names import short_name

_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """The outcome of a run.

    `word` is OK, CHANGED, FAILED, INCONCLUSIVE, STOPPED or NOT MEASURED, `sentence` explains it, and `accept` is the
    command that accepts the change of a single pair. `category` is for pytest's last line, such as
    `pair differs at layers 15-28`, and `count` its number; it is empty unless something changed.
    """

    word: str
    sentence: str
    colour: str
    accept: str = ""
    category: str = ""
    count: int = 0

    def lines(self, width: int) -> list[Line]:
        """Return the sentence folded to the width of the terminal, and the command."""
        lines = fold_lines([f"PHASES {self.word}: {self.sentence}"], width, self.colour)
        if not self.accept:
            return lines
        if len(f"  accept: {self.accept}") <= width:
            return [*lines, Line(f"  accept: {self.accept}", self.colour)]
        return [*lines, Line("  accept:", self.colour), *map(Line, command_lines(self.accept, width, 4))]


def run_outcome(
    findings: SessionResults,
    outcomes: Sequence[PairOutcome],
    *,
    failed: bool,
    interrupted: bool = False,
    problems: Sequence[str] = (),
) -> RunOutcome:
    """Return the outcome of a run, the worst of its pairs.

    Args:
        findings: the profiles and verdicts of the run.
        outcomes: its `outcomes.pair_outcomes`.
        failed: True if the run exits with an error.
        interrupted: True if the run was stopped before its end.
        problems: reasons why the run fails besides its verdicts, such as a report that cannot be written.
    """
    changes = changed_pairs(outcomes)
    claims = [
        f"{outcome.name} ({', '.join(names)})"
        for outcome in outcomes
        if (names := [name for name, mark in outcome.claim_marks().items() if mark == "!"])
    ]
    errors = [short_name(str(pair)) for pair in findings.unmeasured if pair not in findings.unavailable]
    reasons = [
        f"claims with an unexpected verdict: {_named(claims)}" if claims else "",
        f"not measured because of an error: {_named(errors)}" if errors else "",
        findings.inconclusive_reason(),
        *problems,
    ]
    reason = "; ".join(filter(None, reasons))
    if interrupted:
        done = f"{len(findings.profiles)} of {max(len(findings.collected), len(findings.profiles))}"
        return RunOutcome("STOPPED", f"interrupted after {done} pairs; the next run continues from the cache", BAD)
    if changes:
        return _changed(changes, f". Besides, {reason}" if reason else "")
    if reason and failed:
        only_inconclusive = reason == findings.inconclusive_reason()
        return RunOutcome("INCONCLUSIVE" if only_inconclusive else "FAILED", reason, BAD)
    if not outcomes:
        return RunOutcome("NOT MEASURED", f"{_pairs(len(findings.unavailable))} left out", BAD if failed else OPEN)
    sentence = "; ".join(filter(None, [_unchanged(findings, outcomes), _claims(outcomes)]))
    if failed:
        return RunOutcome("OK", f"{sentence}; but other tests failed", BAD)
    return RunOutcome("OK", sentence, GOOD)


def _changed(changes: Sequence[tuple[PairOutcome, PairChange]], besides: str) -> RunOutcome:
    (outcome, change), *others = changes
    if not others:
        at = f" at layer{'' if change.layers.isdigit() else 's'} {change.layers}" if change.layers else ""
        where = change.first_changed or f"differs{at} from {outcome.compared_with}"
        cause = change.cause.split("; ")[0]
        sentence = f"{outcome.name}: {where} ({cause}){besides}"
        return RunOutcome("CHANGED", sentence, BAD, change.accept, f"pair differs{at}", 1)
    named = [
        f"{outcome.name} ({change.first_changed})" if change.first_changed else outcome.name
        for outcome, change in changes
    ]
    sentence = f"{_pairs(len(changes))}: {_named(named)}{besides}"
    return RunOutcome("CHANGED", sentence, BAD, category="pairs differ", count=len(changes))


def _unchanged(findings: SessionResults, outcomes: Sequence[PairOutcome]) -> str:
    """Return the comparison with the baselines in words, if no change is confirmed."""
    undecided = [
        f"{outcome.name} ({', '.join(names)})"
        for outcome in outcomes
        if (names := [name for name, result in outcome.regressions.items() if result.verdict == "inconclusive"])
    ]
    if undecided:
        return f"no change is confirmed; inconclusive: {_named(undecided)}"
    if findings.written:
        return f"{len(findings.written)} baseline{'' if len(findings.written) == 1 else 's'} written"
    return "nothing changed" if any(outcome.regressions for outcome in outcomes) else "no baseline compared"


def _claims(outcomes: Sequence[PairOutcome]) -> str:
    marks = [mark for outcome in outcomes for mark in outcome.claim_marks().values()]
    if not marks:
        return ""
    known, reported, undecided = (marks.count(mark) for mark in "xf?")
    texts = []
    if reported:
        why = "findings; no baseline yet" if any(outcome.baseline is None for outcome in outcomes) else "findings"
        holding, failing = marks.count("+"), reported + known
        hold, fail = "holds" if holding == 1 else "hold", "fails" if failing == 1 else "fail"
        texts.append(f"{_counted(len(marks), 'claim')}: {holding} {hold}, {failing} {fail} ({why})")
    elif known:
        texts.append("1 claim fails as expected" if known == 1 else f"{known} claims fail, all as expected")
    elif not undecided:
        texts.append(f"all {len(marks)} claims hold" if len(marks) > 1 else "the claim holds")
    if undecided:
        texts.append(f"{_counted(undecided, 'claim')} inconclusive")
    return ", ".join(texts)


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def _pairs(count: int) -> str:
    return _counted(count, "pair")


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
