"""The details of a run: a block per pair, relative depth, exclusions, differences to the controls and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from harness.judgement.landmarks import landmark_text
from harness.judgement.phases import CLAIM_NAMES, SHARES, phase_reading, relative_depth
from harness.measurement.word_order import CONFIDENCE, word_order_scores
from harness.models.likelihood import CHANCE
from harness.profile.measures import layer_ranges
from harness.profile.profile import Profile
from harness.report.controls_compared import control_table
from harness.report.image_flow import flow_sentences
from harness.report.layout import Line, fold, fold_lines, labelled_lines, table_lines, unbroken
from harness.report.outcomes import PairOutcome, exclusion_lines, phase_ranges, shows_relative_depth
from harness.report.rephrased import rephrasing_text
from harness.run.session_results import SessionResults
from harness.storage.file_names import short_name

# The column at which the text of a block starts.
_COLUMN = 16
_BLOCKS_LEGEND = (
    "intervals: 99 %, also for times; segments: monotone segments of the similarity between image and text "
    "tokens, of which the paper has four; recall: LogitLens, top 5 at the last point"
)
_DEPTH_LEGEND = "shares of the depth: 0 is the embeddings, 1 the input of the final norm; with 99 % intervals"
_CONTROL_LEGEND = (
    "real - control: difference to the control on the same samples; in brackets: not confirmed in the "
    "direction of the claim"
)


def detail_lines(findings: SessionResults, outcomes: Sequence[PairOutcome], width: int) -> list[Line]:
    """Return all results of a run; only paths and names may make a line wider than `width`."""
    profiles = {outcome.name: outcome.profile for outcome in outcomes}
    relative = shows_relative_depth(profiles)
    lines: list[Line] = []
    for outcome in outcomes:
        lines += [*_block_lines(outcome, width, relative=relative), Line("")]
    lines += fold_lines([_BLOCKS_LEGEND, *([_DEPTH_LEGEND] if relative else [])], width)
    lines += fold_lines([line for name, profile in profiles.items() for line in unread_lines(name, profile)], width)
    # A block already contains the reason why recall is missing.
    left_out = [
        f"{name}: {line}" for name, profile in profiles.items() for line in exclusion_lines(profile, recall=False)
    ]
    lines += fold_lines(left_out, width)
    lines += [Line(line) for line in _control_lines(findings, width)]
    return lines + fold_lines(_winoground_lines(findings), width)


def _block_lines(outcome: PairOutcome, width: int, *, relative: bool = False) -> list[Line]:
    """Return the lines of one pair; with `relative` also its boundaries as shares of the depth."""
    profile, segments = outcome.profile, outcome.reading.any_segments.count
    lines = fold_lines([f"{outcome.name}: {profile.n} samples, {profile.depth} layers"], width)

    def add_lines(name: str, text: str, colour: str = "") -> None:
        lines.extend(Line(line, colour) for line in labelled_lines(name, text, width, _COLUMN))

    add_lines("phases", f"in layers: {_listed(phase_ranges(outcome))}")
    if relative:
        shares = [f"{relative_depth(end, profile.depth):.2f}" for end in outcome.ends]
        add_lines("depth", f"I, II, III end at {_listed(shares)} of the depth")
    if landmarks := landmark_text(profile):
        add_lines("landmarks", landmarks)
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
    if outcome.reading.knockout is not None:
        for index, sentence in enumerate(flow_sentences(outcome.reading.knockout)):
            add_lines("" if index else "image", sentence)
    if text := rephrasing_text(outcome):
        add_lines("instruction", text)
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
    if len(profile.measured(("weight_self", "norm_self"))) < 2:
        return []
    weighed, normed = (profile[f"{kind}_self"].any(axis=0) for kind in ("weight", "norm"))
    kinds = (("no softmax attention", ~weighed), ("attention by weight only", weighed & ~normed))
    return [
        f"{name}: {text} in layers {layer_ranges(np.flatnonzero(layers) + 1)}, whose shares are 0"
        for text, layers in kinds
        if layers.any()
    ]


def _control_lines(findings: SessionResults, width: int) -> list[str]:
    judged = [result for result in findings.verdicts if result.claim is not None]
    pairs, names = list(dict.fromkeys(result.pair for result in judged)), list(CLAIM_NAMES)
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
