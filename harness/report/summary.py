"""The summary at the end of a run: a table of the pairs, or a block per pair on narrow terminals, and baselines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from harness.baselines.store import LEAST_SAMPLES
from harness.judgement.phases import SHARES, phase_reading, relative_depth
from harness.judgement.results import Result
from harness.measurement.word_order import CONFIDENCE, word_order_scores
from harness.models.likelihood import CHANCE
from harness.profile.measures import layer_ranges
from harness.profile.profile import Profile
from harness.report.controls_compared import control_table
from harness.report.layout import Line, fold, labelled_lines, table_lines, unbroken
from harness.report.outcomes import PairOutcome, exclusion_lines, pair_outcomes, phase_ranges, shows_relative_depth
from harness.report.verdict_words import VERDICTS
from harness.run.session_results import SessionResults
from harness.run.stored_baselines import unused_baselines
from harness.storage.file_names import short_name

# The column at which the text of a block starts.
_COLUMN = 16
# Short names of the claims, so that five claims fit into a column of the table; a legend follows the table.
_CLAIM_MARKS = {
    "four-phases": "4",
    "alignment": "I",
    "intra-modal": "II",
    "inter-modal": "III",
    "output-preparation": "IV",
}
_MARKS_LEGEND = (
    "claims: + holds, - fails, ? inconclusive   regression: = reproduces, ~ equivalent, ! differs, ? inconclusive"
)
_NUMBERS_LEGEND = (
    "phases: the ends of I / II / III, with 99 % intervals; segments: monotone segments confirmed at 10 % "
    f"of the range, in brackets those of the mean curve at {', '.join(f'{share:.0%}' for share in SHARES)}; "
    "recall: top 5 at the last point, in brackets chance: another sample's words"
)
_BLOCKS_LEGEND = (
    "intervals: 99 %, also for times; segments: monotone segments of the similarity between image and text "
    "tokens, of which the paper has four; recall: LogitLens, top 5 at the last point"
)
_DEPTH_LEGEND = "shares of the depth: 0 is the embeddings, 1 the input of the final norm; with 99 % intervals"
_CONTROL_LEGEND = (
    "real - control: difference to the control on the same samples; in brackets: not confirmed in the "
    "direction of the claim"
)


def summary_lines(findings: SessionResults, width: int, *, brief: bool = False) -> list[Line]:
    """Return the lines of the summary; only paths and names may make a line wider than `width`.

    Args:
        findings: the profiles and verdicts of the run.
        width: of the terminal, in columns.
        brief: True omits all but the verdicts of the pairs and the lines on baselines.
    """
    outcomes = pair_outcomes(findings)
    profiles = {short_name(str(pair)): profile for pair, profile in findings.profiles.items()}
    table = _table(outcomes)
    wide = max(len(line.text) for line in table) <= width
    notes = [f"{outcome.name}: {text}" for outcome in outcomes for text in outcome.notes]
    lines = [*table, Line(""), *_fold_lines(notes, width)] if wide else []
    if not wide:
        relative = shows_relative_depth(profiles)
        for outcome in outcomes:
            lines += [*_block_lines(outcome, width, relative=relative), Line("")]
        legends = [_BLOCKS_LEGEND, *([_DEPTH_LEGEND] if relative else [])]
    else:
        legends = [_MARKS_LEGEND, _NUMBERS_LEGEND]
    if brief:
        legends = [_MARKS_LEGEND] if wide else []
    lines += _fold_lines(legends, width)
    if not brief:
        if wide:
            lines += [Line(line) for line in relative_lines(profiles, width)]
        lines += _fold_lines(
            [line for name, profile in profiles.items() for line in unread_lines(name, profile)], width
        )
        # A block already contains the reason why recall is missing.
        left_out = [
            f"{name}: {line}" for name, profile in profiles.items() for line in exclusion_lines(profile, recall=wide)
        ]
        lines += _fold_lines(left_out, width)
        lines += [Line(line) for line in _control_lines(findings, width)]
        lines += _fold_lines(_winoground_lines(findings), width)
    return lines + baseline_lines(findings, width)


def _block_lines(outcome: PairOutcome, width: int, *, relative: bool = False) -> list[Line]:
    """Return the lines of one pair; with `relative` also its boundaries as shares of the depth."""
    profile, segments = outcome.profile, outcome.reading.any_segments.count
    lines = _fold_lines([f"{outcome.name}: {profile.n} samples, {profile.depth} layers"], width)

    def add_lines(name: str, text: str, colour: str = "") -> None:
        lines.extend(Line(line, colour) for line in labelled_lines(name, text, width, _COLUMN))

    add_lines("phases", f"in layers: {_listed(phase_ranges(outcome))}")
    if relative:
        shares = [f"{relative_depth(end, profile.depth):.2f}" for end in outcome.ends]
        add_lines("depth", f"I, II, III end at {_listed(shares)} of the depth")
    counts = ", ".join(str(count) for count in outcome.segment_counts)
    shares_text = ", ".join(f"{100 * share:g}" for share in SHARES)
    add_lines(
        "segments",
        f"{segments} confirmed at 10 % of the curve's range; the mean curve has "
        f"{unbroken(counts)} at {unbroken(shares_text)} %",
    )
    for name, groups in (("claims", outcome.claim_groups()), ("regression", outcome.regression_groups())):
        for index, group in enumerate(groups):
            add_lines("" if index else name, f"{unbroken(group.label)}: {', '.join(group.questions)}", group.colour)
    for index, text in enumerate(outcome.notes):
        add_lines("" if index else "baseline", text)
    if outcome.recall is None:
        add_lines("recall", f"left out: {profile.no_recall}")
    else:
        add_lines("recall", "{:.2f} of the words; by chance {:.2f} (another sample's words)".format(*outcome.recall))
    if outcome.ratio is not None:
        ratio, interval = outcome.ratio_text.split(" ", 1)
        add_lines("hooked/plain", f"{ratio} times the plain time {unbroken(interval)}")
    return lines


def _listed(words: Sequence[str]) -> str:
    return ", ".join(unbroken(word) for word in words)


def relative_lines(profiles: Mapping[str, Profile], width: int | None = None) -> list[str]:
    """Return a table of the boundaries as shares of the depth; empty unless `shows_relative_depth`.

    Args:
        profiles: the profiles by the name of the pair.
        width: of the terminal, in columns; None does not fold lines.
    """
    if not shows_relative_depth(profiles):
        return []
    rows = []
    for name, profile in profiles.items():
        points = phase_reading(profile).boundaries.turning_points
        rows.append([name, str(profile.depth), *(f"{relative_depth(point, profile.depth):.2f}" for point in points)])
    table = table_lines(["pair", "layers", "I ends at", "II ends at", "III ends at"], rows, width)
    legend = [_DEPTH_LEGEND] if width is None else fold(_DEPTH_LEGEND, width)
    return ["", *table, "", *legend, ""]


def unread_lines(name: str, profile: Profile) -> list[str]:
    """Return lines with the layers of a pair without attention, and with attention weights only."""
    weighed, normed = (profile[f"{kind}_self"].any(axis=0) for kind in ("weight", "norm"))
    kinds = (("no softmax attention", ~weighed), ("attention by weight only", weighed & ~normed))
    return [
        f"{name}: {text} in layers {layer_ranges(np.flatnonzero(layers) + 1)}, whose shares are 0"
        for text, layers in kinds
        if layers.any()
    ]


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
    lines = _fold_lines([f"baselines: {', '.join(counts)}"], width) + written_lines(findings, width)
    remarks = [
        f"{unbroken(f'  unused {path}:')} no pair has this name; delete the file if it is obsolete" for path in unused
    ]
    small = [short_name(profile.pair) for profile in findings.profiles.values() if profile.n < LEAST_SAMPLES]
    if small:
        remarks.append(f"  fewer than {LEAST_SAMPLES} samples for {', '.join(small)}: expect inconclusive verdicts")
    return lines + _fold_lines(remarks, width)


def written_lines(findings: SessionResults, width: int) -> list[Line]:
    """Return a line for each written baseline."""
    return _fold_lines([unbroken(f"  wrote {path} ({kind})") for path, kind in findings.written.items()], width)


def _table(outcomes: Sequence[PairOutcome]) -> list[Line]:
    header = ["pair", "n", "phases end at layer", "segments", "claims", "recall", "regression", "hooked/plain"]
    lines = table_lines(header, [_row(outcome) for outcome in outcomes])
    colours = ["", "", *(outcome.colour() for outcome in outcomes)]
    return [Line(text, colour) for text, colour in zip(lines, colours, strict=True)]


def _row(outcome: PairOutcome) -> list[str]:
    return [
        outcome.name,
        str(outcome.profile.n),
        " / ".join(f"{end:g}" for end in outcome.ends),
        f"{outcome.reading.any_segments.count} ({' '.join(str(count) for count in outcome.segment_counts)})",
        _marked({_CLAIM_MARKS[name]: result for name, result in outcome.claims.items()}),
        outcome.recall_text,
        _marked(outcome.regressions),
        outcome.ratio_text,
    ]


def _marked(results: Mapping[str, Result]) -> str:
    return " ".join(f"{name}{VERDICTS[result.verdict].mark}" for name, result in results.items())


def _control_lines(findings: SessionResults, width: int) -> list[str]:
    judged = [result for result in findings.verdicts if result.claim is not None]
    pairs, names = list(dict.fromkeys(result.pair for result in judged)), list(_CLAIM_MARKS)
    judged.sort(key=lambda result: (pairs.index(result.pair), names.index(result.question)))
    claims = ((short_name(str(result.pair)), result.claim) for result in judged if result.claim is not None)
    table = control_table(claims, width)
    return ["", *table, "", *fold(_CONTROL_LEGEND, width), ""] if table else []


def _winoground_lines(findings: SessionResults) -> list[str]:
    lines = []
    for pair, profile in findings.profiles.items():
        scores = word_order_scores(profile)
        intervals = [unbroken(f"{name} {s.share:.2f} [{s.low:.2f}-{s.high:.2f}]") for name, s in scores.items()]
        if intervals:
            lines.append(
                f"Winoground scores of {short_name(str(pair))}: {', '.join(intervals)} of {scores['group'].items} items"
            )
    if lines:
        chance = ", ".join(f"{name} {share:.2f}" for name, share in CHANCE.items())
        lines.append(f"  with {CONFIDENCE:.0%} intervals; chance: {chance}")
    return lines


def _fold_lines(texts: Sequence[str], width: int) -> list[Line]:
    return [Line(line) for text in texts for line in fold(text, width)]
