"""The summary of a run in GitHub's Markdown, for the step summary of a workflow."""

from __future__ import annotations

import html
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import version

from harness.errors import printable, shorten
from harness.judgement.results import Evidence, Result
from harness.report.against import ModelComparison
from harness.report.image_flow import flow_sentences
from harness.report.outcomes import PairOutcome, QuestionGroup, exclusion_lines, pair_outcomes, phase_ranges
from harness.report.rephrased import rephrasing_text
from harness.run.session_results import SessionResults
from harness.storage.file_names import short_name

_COLUMNS = ("pair", "samples", "phases in layers", "claims", "regression", "recall (by chance)", "hooked/plain")
_NUMBERS = ("pair", "question", "verdict", "measure", "where", "effect", "interval", "margin", "n")


def markdown_summary(findings: SessionResults, compared: Sequence[ModelComparison] = ()) -> str:
    """Return the summary as Markdown; markup in names and texts of models and datasets is escaped.

    Args:
        findings: the profiles and verdicts of the run.
        compared: the comparisons with the model of --phase-against.

    Raises:
        KnownDifferencesError: the list of known differences cannot be read.
    """
    outcomes = pair_outcomes(findings)
    unexpected = [line for outcome in outcomes for line in outcome.unexpected()]
    inconclusive = [line for outcome in outcomes for line in outcome.inconclusive()]
    parts = [
        f"## Phases of vision-language models: {_overall(findings, len(unexpected), len(inconclusive))}",
        f"**{prose(findings.problem())}**" if findings.problem() else "",
        _table(_COLUMNS, map(_row, outcomes)),
        _numbers("Unexpected verdicts", unexpected),
        "\n".join(f"- {code(outcome.name)}, {prose(text)}" for outcome in outcomes for text in outcome.notes),
        _numbers("Inconclusive verdicts", inconclusive),
        _excluded(findings),
        _known(outcomes),
        _flow(outcomes),
        _rephrased(outcomes),
        *map(_side_by_side, compared),
        _baselines(findings),
        _warnings(findings),
        _provenance(findings),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def code(text: str) -> str:
    """Return a name as inline code; characters that end code or table cells, or form a tag, are escaped."""
    escaped = re.sub("[`|<>&]", lambda sign: rf"\x{ord(sign[0]):02x}", printable(text))
    return f"`{escaped}`" if escaped else ""


def prose(text: str) -> str:
    """Return a text on one line, shortened, with all markup escaped."""
    return re.sub(r"([\\`*_~\[\]#@])", r"\\\1", html.escape(printable(shorten(text)), quote=False)).replace(
        "|", "&#124;"
    )


def _overall(findings: SessionResults, unexpected: int, inconclusive: int) -> str:
    total = len(findings.verdicts)
    if not total:
        return "nothing was judged"
    counts = [f"{unexpected} of {total} verdicts unexpected"] if unexpected else []
    counts += [f"{inconclusive} of {total} inconclusive"] if inconclusive else []
    return ", ".join(counts) or f"all {total} verdicts as expected"


def _row(outcome: PairOutcome) -> list[str]:
    return [
        code(outcome.name),
        str(outcome.profile.n),
        "<br>".join(phase_ranges(outcome)),
        _grouped(outcome.claim_groups()),
        _grouped(outcome.regression_groups()),
        outcome.recall_text,
        outcome.ratio_text,
    ]


def _grouped(groups: Iterable[QuestionGroup]) -> str:
    return "<br>".join(f"**{group.label}**: {', '.join(group.questions)}" for group in groups)


def _numbers(title: str, results: Sequence[Result]) -> str:
    rows = [_part(result, part) for result in results for part in _deciding(result)]
    return _section(title, [_table(_NUMBERS, rows)] if rows else [])


def _section(title: str, lines: Sequence[str]) -> str:
    return "\n".join([f"### {title}", "", *lines]) if lines else ""


def _deciding(result: Result) -> Sequence[Evidence]:
    parts = [part for part in result.worst_first if part.verdict == result.verdict or part.samples_changed]
    return parts or result.worst_first[:1]


def _part(result: Result, part: Evidence) -> list[str]:
    low, high = part.interval
    change = f", changed ({part.change})" if part.samples_changed and part.verdict != "differs" else ""
    return [
        code(short_name(str(result.pair))),
        result.question,
        f"{part.verdict}{change}",
        prose(part.title),
        part.location,
        _number(part.effect),
        f"{_number(low)} to {_number(high)}" if math.isfinite(low + high) else "",
        _number(part.margin).removeprefix("+"),
        str(part.n),
    ]


def _number(value: float) -> str:
    return f"{value:+.3g}" if math.isfinite(value) else ""


def _excluded(findings: SessionResults) -> str:
    lines = [
        f"- {code(short_name(str(pair)))}: {prose(line)}"
        for pair, profile in findings.profiles.items()
        for line in exclusion_lines(profile)
    ]
    return _section("Excluded from the measurement", lines)


def _known(outcomes: Sequence[PairOutcome]) -> str:
    lines = [
        f"- {code(outcome.name)}, {name}: {prose(reason)}"
        for outcome in outcomes
        for name, reason in outcome.known.items()
        if name in outcome.claims and outcome.claims[name].verdict == "fails"
    ]
    return _section("Known differences, as expected", lines)


def _flow(outcomes: Sequence[PairOutcome]) -> str:
    """Return a line per pair with a knockout: where the image enters, and from which layer on it is not needed."""
    knockouts = {outcome.name: outcome.reading.knockout for outcome in outcomes}
    lines = [
        f"- {code(name)}: {prose(' '.join(flow_sentences(knockout)))}"
        for name, knockout in knockouts.items()
        if knockout is not None
    ]
    return _section("Where the image enters", lines)


def _rephrased(outcomes: Sequence[PairOutcome]) -> str:
    texts = {outcome.name: rephrasing_text(outcome) for outcome in outcomes}
    lines = [f"- {code(name)} {prose(text)}" for name, text in texts.items() if text]
    return _section("Another instruction of the same meaning", lines)


def _side_by_side(comparison: ModelComparison) -> str:
    lines = [html.escape(printable(shorten(line)), quote=False) for line in comparison.lines()]
    return _section("Side by side", ["<pre>", *lines, "</pre>"])


def _baselines(findings: SessionResults) -> str:
    counts_by_kind = Counter(findings.written.values())
    counts = [f"{len(findings.matched)} matched", *(f"{count} {kind}" for kind, count in counts_by_kind.items())]
    lines = [f"- wrote {code(str(path))} ({kind})" for path, kind in findings.written.items()]
    return "\n".join([f"Baselines: {', '.join(counts)}", *(["", *lines] if lines else [])])


def _warnings(findings: SessionResults) -> str:
    head, *kinds = findings.warnings.lines() or [""]
    return "\n".join([head.capitalize(), "", *(f"- {prose(kind.strip())}" for kind in kinds)]) if kinds else ""


def _provenance(findings: SessionResults) -> str:
    environments = dict.fromkeys(str(profile.environment) for profile in findings.profiles.values())
    return f"vlm-phase-harness {version('vlm-phase-harness')}, {prose('; '.join(environments))}"


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
