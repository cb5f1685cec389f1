"""The summary of a run in the terminal: two lines a pair, its change in a few lines, and the baselines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from harness.analysis.claims import CLAIMS, PHASES
from harness.analysis.flow_claims import FLOW_CLAIMS
from harness.baselines.store import LEAST_SAMPLES
from harness.interface import option_text
from harness.report.changes import PairChange, pair_change
from harness.report.details import detail_lines
from harness.report.image_flow import flow_sentences
from harness.report.layout import Line, fold, fold_lines, unbroken
from harness.report.outcomes import CLAIM_MARKS, PairOutcome
from harness.report.rephrased import rephrasing_text
from harness.report.verdict_words import BAD
from harness.run.session_results import SessionResults
from harness.run.stored_baselines import unused_baselines
from harness.storage.file_names import short_name

_CLAIM_NAMES = {
    "four-phases": "4",
    "alignment": "I",
    "intra-modal": "II",
    "inter-modal": "III",
    "output-preparation": "IV",
    "fusion-flows": "fusion",
    "alignment-flows": "alignment",
    "output-is-local": "local",
}
_PHASES_LEGEND = (
    "I alignment, II intra-modal encoding, III inter-modal encoding, IV output preparation: layers of each phase"
)
_INTERVAL_LEGEND = "[99 % interval of its end]"
_BEST_GUESS = "the cut is a best guess"
# Further models that were left out are counted, not named.
_MOST_LEFT_OUT = 3


def summary_lines(
    findings: SessionResults, outcomes: Sequence[PairOutcome], width: int, *, verbosity: int = 0
) -> list[Line]:
    """Return the lines of the summary; only paths and names may make a line wider than `width`.

    Args:
        findings: the profiles and verdicts of the run.
        outcomes: its `outcomes.pair_outcomes`.
        width: of the terminal, in columns.
        verbosity: that of pytest: 1 adds all details, -1 omits the legend and what was left out.
    """
    if verbosity > 0:
        lines = detail_lines(findings, outcomes, width)
    else:
        lines = [line for outcome in outcomes for line in _pair_lines(outcome, width)]
        if verbosity == 0 and outcomes:
            lines += fold_lines(_legend(outcomes), width)
    changes = changed_pairs(outcomes)
    for outcome, change in changes:
        lines += [Line(""), *_change_lines(outcome, change, width, with_command=len(changes) > 1)]
    lines += [Line("")] if changes else []
    lines += baseline_lines(findings, width)
    return lines + (fold_lines(_left_out(findings, verbosity), width) if verbosity >= 0 else [])


def changed_pairs(outcomes: Sequence[PairOutcome]) -> list[tuple[PairOutcome, PairChange]]:
    """Return the changed pairs with their changes."""
    return [(outcome, change) for outcome in outcomes if (change := pair_change(outcome)) is not None]


def command_lines(command: str, width: int, column: int = 2) -> list[str]:
    """Return a command folded with backslashes, so that it can be copied to a shell."""
    lines = fold(command, width - column - 2, hanging_indent=2)
    indent = " " * column
    return [*(f"{indent}{line} \\" for line in lines[:-1]), f"{indent}{lines[-1]}"]


def baseline_lines(findings: SessionResults, width: int) -> list[Line]:
    """Return lines with the numbers of matched, written and unused baselines, and the paths."""
    counts_by_kind = Counter(findings.written.values())
    unused = unused_baselines(findings.options)
    counts = [
        f"{len(findings.matched)} matched",
        f"{counts_by_kind['changed']} changed",
        f"{counts_by_kind['new']} new",
        f"{len(unused)} unused",
    ]
    if counts_by_kind["calibrated"]:
        counts.append(f"{counts_by_kind['calibrated']} calibrated")
    lines = fold_lines([f"baselines: {', '.join(counts)}"], width) + written_lines(findings, width)
    remarks = [
        f"{unbroken(f'  unused {path}:')} no pair has this name; delete the file if it is obsolete" for path in unused
    ]
    small = [short_name(profile.pair) for profile in findings.profiles.values() if profile.n < LEAST_SAMPLES]
    if small:
        remarks.append(f"  fewer than {LEAST_SAMPLES} samples for {', '.join(small)}: expect inconclusive verdicts")
    return lines + fold_lines(remarks, width)


def written_lines(findings: SessionResults, width: int) -> list[Line]:
    """Return a line for each written baseline."""
    return fold_lines([unbroken(f"  wrote {path} ({kind})") for path, kind in findings.written.items()], width)


def _pair_lines(outcome: PairOutcome, width: int) -> list[Line]:
    """Return a line with the verdict against the baseline, and one with the phases and the claims."""
    head = f"{outcome.name}, {unbroken(f'{outcome.profile.n} samples')}: {outcome.verdict_text()}"
    lines = fold_lines([head], width, outcome.colour())
    pieces = [unbroken("  ".join(_phase_texts(outcome)))]
    for title, names in (("claims", CLAIMS), ("flow", FLOW_CLAIMS)):
        marks = [f"{_CLAIM_NAMES[name]}{mark}" for name, mark in outcome.claim_marks().items() if name in names]
        if marks:
            pieces.append(unbroken(f"  {title} {'  '.join(marks)}"))
    lines += fold_lines([f"  {' '.join(pieces)}"], width)
    if text := rephrasing_text(outcome):
        lines += fold_lines([f"  {text}"], width)
    if outcome.reading.knockout is not None:
        lines += fold_lines([f"  {sentence}" for sentence in flow_sentences(outcome.reading.knockout)], width)
    confirmed = outcome.reading.confirmed
    if not all(confirmed):
        lines.append(Line(f"  {sum(confirmed)} of {len(confirmed)} phases confirmed; {_BEST_GUESS}"))
    return lines


def _phase_texts(outcome: PairOutcome) -> Iterator[str]:
    edges = [0.0, *(end.estimate for end in outcome.ends), float(outcome.profile.depth)]
    for phase, name in enumerate(PHASES):
        end = outcome.ends[phase] if phase < len(outcome.ends) else None
        interval = "" if end is None or end.low == end.high else f" [{end.low:g}-{end.high:g}]"
        yield f"{name} {edges[phase]:g}-{edges[phase + 1]:g}{interval}"


def _legend(outcomes: Sequence[PairOutcome]) -> list[str]:
    """Return texts that explain the phases, and the marks of claims that occur."""
    intervals = any(end.low != end.high for outcome in outcomes for end in outcome.ends)
    marks = {mark for outcome in outcomes for mark in outcome.claim_marks().values()}
    texts = [f"{_PHASES_LEGEND} {unbroken(_INTERVAL_LEGEND)}" if intervals else _PHASES_LEGEND]
    if marks:
        meanings = [unbroken(f"{mark} {meaning}") for mark, meaning in CLAIM_MARKS.items() if mark in marks]
        texts[0] += "; 4 the claim of four phases"
        texts.append(f"claims: {', '.join(meanings)}")
    return texts


def _change_lines(outcome: PairOutcome, change: PairChange, width: int, *, with_command: bool) -> list[Line]:
    """Return the lines of a changed pair: first changed layer, cause, largest difference and inconclusive measures."""
    until = f"identical up to {change.identical_until}" if change.identical_until else ""
    located = "; ".join(filter(None, [change.first_changed, until])) or f"differs from {outcome.compared_with}"
    lines = fold_lines([f"{outcome.name}: {located}"], width, BAD)
    rows = {
        "cause": change.cause,
        "most" if len(change.differs) > 1 else "differs": _first(change.differs),
        "inconclusive": _first(change.undecided),
    }
    lines += fold_lines([f"  {name}: {text}" for name, text in rows.items() if text], width)
    if with_command and change.accept:
        lines += [Line("  accept:"), *(Line(line) for line in command_lines(change.accept, width, 4))]
    return lines


def _first(texts: Sequence[str]) -> str:
    """Return the first text and the number of the others."""
    return f"{texts[0]}; {len(texts) - 1} more" if len(texts) > 1 else "".join(texts)


def _left_out(findings: SessionResults, verbosity: int) -> list[str]:
    """Return texts on the pairs that were not measured, and on results that other options show."""
    texts = []
    absent = [pair for pair in findings.unmeasured if pair in findings.unavailable]
    if absent:
        models = [short_name(name) for name in dict.fromkeys(pair.model for pair in absent)]
        names = ", ".join(models[:_MOST_LEFT_OUT])
        if (further := len(models) - _MOST_LEFT_OUT) > 0:
            names += f" and {further} more model{'' if further == 1 else 's'}"
        counted = "1 pair" if len(absent) == 1 else f"{len(absent)} pairs"
        texts.append(
            f"left out: {counted} of {names}, whose weights or data are not here: {unbroken('vlm-phase doctor')} "
            f"names what is missing, {unbroken('-rs')} the reasons"
        )
    if verbosity == 0 and findings.profiles:
        page = "" if findings.options.report else f" or on the page ({unbroken(option_text('report', 'DIR'))})"
        texts.append(
            f"details: {unbroken('-v')}{page}; reasons of expected failures: {unbroken('-rx')}; "
            f"times: {unbroken('-m timing')}"
        )
    return texts
