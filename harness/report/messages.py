"""Assertion messages: the change with its position and size, the baseline, and the command that accepts the change."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from harness.analysis.boundary_agreement import BoundaryAgreement, BoundaryShift
from harness.analysis.claims import PHASES
from harness.analysis.interval_agreement import IntervalAgreement, IntervalFinding, Question
from harness.analysis.mean_difference import Verdict, View
from harness.analysis.monotone import Answer, Monotonicity
from harness.baselines.store import Baseline
from harness.interface import current, measure_command, option_text
from harness.judgement.regression import Finding
from harness.judgement.results import format_largest_change
from harness.models.registry import MODELS
from harness.profile.profile import Profile
from harness.report.layout import MESSAGE_WIDTH, fold, join_unbroken, unbroken

# The columns that pytest fills before the first line of a message.
_PREFIX_WIDTH = len("AssertionError: ")
_NOT_MONOTONE = "not monotone"


def fold_message(lines: Iterable[str]) -> str:
    """Return the lines folded for a terminal of 80 columns, with room for the prefix that pytest prints."""
    folded: list[str] = []
    for line in lines:
        hanging = 2 if line.startswith(" ") else 4
        folded += fold(line, MESSAGE_WIDTH, hanging, first_offset=0 if folded else _PREFIX_WIDTH)
    return "\n".join(folded)


def changed_measure_lines(finding: Finding, profile: Profile) -> list[str]:
    """Return the unfolded lines of a message on one measure: positions, numbers and changed samples.

    Args:
        finding: the comparison of the measure with its baseline.
        profile: the measured profile.
    """
    agreement, mean, axis = finding.agreement, finding.agreement.mean, finding.measure.axis
    positions, worst_position = axis.describe(finding.indices), finding.worst_position
    change = "differs" if agreement.verdict is Verdict.DIFFERS else "changed"
    if agreement.verdict is Verdict.INCONCLUSIVE and agreement.reproduced is not False:
        change = "may have changed"
    low, high = mean.interval
    view = "" if mean.view is View.LEVEL else " of the shape (each sample minus its mean)"
    numbers = join_unbroken(
        f"{mean.effect:+.3g} at {axis.name} {worst_position}",
        f"({mean.confidence:.3%} interval {low:+.3g} to {high:+.3g}),",
        f"margin {mean.margin:.3g},",
        f"n = {mean.n} {'paired' if mean.paired else 'unpaired'}  -> {agreement.verdict.upper()}",
    )
    lines = [
        f"{finding.measure.title} of {profile.model} on {profile.dataset} {change} at {positions}:",
        f"  mean difference{view} {numbers}",
    ]
    if agreement.beyond_tolerance:
        lines += _sample_lines(finding, profile, worst_position - mean.layer)
    if agreement.verdict is Verdict.INCONCLUSIVE and mean.n_needed:
        lines.append(f"  a conclusive verdict needs about n = {mean.n_needed}")
    return lines


def boundary_lines(shift: BoundaryShift, agreement: BoundaryAgreement) -> list[str]:
    """Return a list with one line: the shift of a boundary, its interval and margin."""
    low, high = shift.interval
    numbers = join_unbroken(
        f"({agreement.confidence:.4%} interval {low:g} to {high:g}),",
        f"margin {shift.margin:g},",
        f"n = {agreement.n} {'paired' if agreement.paired else 'unpaired'}",
    )
    head = f"  {shift.kind} {shift.index} shifted from layer {shift.baseline:g} to {shift.measured:g}:"
    return [f"{head} {shift.effect:+g} {numbers}"]


def phase_lines(finding: IntervalFinding, agreement: IntervalAgreement) -> list[str]:
    """Return two lines: the answers about a phase in the baseline and in this run, and the numbers."""
    answer_texts: dict[Answer, str] = {Monotonicity.VIOLATED: _NOT_MONOTONE}
    before, after = (
        answer_texts.get(finding.baseline, finding.baseline),
        answer_texts.get(finding.measured, finding.measured),
    )
    if finding.verdict is Verdict.INCONCLUSIVE:
        after = f"no longer confirmed as {before}"
    verb = "rise" if finding.direction > 0 else "fall"
    quantity, bound = (verb, "prominence") if finding.question is Question.PRESENCE else ("largest reversal", "margin")
    (low, high), (least, most) = finding.interval, finding.change_interval
    numbers = join_unbroken(
        f"{quantity} {finding.effect:.3g} from point {finding.layers[0]} to {finding.layers[1]}",
        f"(interval {low:.3g} to {high:.3g}),",
        f"in the baseline {finding.before:.3g},",
        f"{bound} {finding.margin:.3g};",
        f"change {finding.change:+.3g}",
        f"({agreement.confidence:.3%} interval {least:+.3g} to {most:+.3g}),",
        f"n = {finding.n} {'paired' if agreement.paired else 'unpaired'}",
    )
    return [
        f"  phase {PHASES[finding.phase - 1]}, a {verb} of inter-modal similarity over residual points "
        f"{finding.first}-{finding.last} of the baseline, was {before} and is {after}:",
        f"    {numbers}",
    ]


def baseline_comparison_lines(profile: Profile, baseline: Baseline) -> list[str]:
    """Return lines with the changes since a baseline, its file, and the command that accepts the change."""
    stored = baseline.profile
    compared = bool(profile.configuration and stored.configuration)
    same = f"same weights,{' same configuration,' if compared else ''} same environment"
    changes = "; ".join(map(_unbroken_change, profile.main_changes(stored))) or same
    if profile.configuration and not compared:
        changes += "; the baseline stores no configuration to compare"
    if baseline.by_id:
        return [f"  between the two models: {changes}", f"  compared with {baseline.describe()}"]
    # Users copy the command, so it is never folded.
    return [
        f"  since the baseline: {changes}",
        *baseline_file_lines(baseline.describe()),
        unbroken(f"  intended? {accept_command(profile)}"),
    ]


def accept_command(profile: Profile) -> str:
    """Return the command that accepts a change as the new baseline; in Python, a sentence.

    A profile knows only the last part of the path of an unregistered model, so its command is not written out.
    """
    if current().prefix is None:
        return "record the baseline again"
    options = option_text("update", "True"), option_text("reason", "TEXT")
    if profile.model not in MODELS:
        return f"the same command with {' '.join(options)}"
    return measure_command(profile.model, profile.dataset, *options)


def changed_samples_brief(family: str, findings: Sequence[Finding]) -> str:
    """Return how many samples of a family changed, where, and the largest change, in one sentence."""
    axis = findings[0].measure.axis
    indices = {index for finding in findings if finding.measure.axis is axis for index in finding.indices}
    most = max(findings, key=lambda finding: finding.agreement.beyond_tolerance).agreement
    largest = max(finding.agreement.largest or 0.0 for finding in findings)
    return (
        f"{family}: {most.beyond_tolerance} of {most.compared} samples changed at {axis.describe(indices)}, "
        f"by up to {largest:.2g}"
    )


def differing_brief(family: str, findings: Sequence[Finding]) -> str:
    """Return where a family differs and its largest difference in margins, in one sentence."""
    worst = max(findings, key=lambda finding: abs(finding.agreement.mean.effect) / finding.agreement.mean.margin)
    axis = worst.measure.axis
    indices = {index for finding in findings if finding.measure.axis is axis for index in finding.indices}
    return f"{family} differs at {axis.describe(indices)}: {part_brief(worst)}"


def part_brief(part: Finding | BoundaryShift | IntervalFinding) -> str:
    """Return the change of a measure, boundary or phase with its size and margin in one sentence."""
    match part:
        case Finding(measure=measure, agreement=agreement):
            mean = agreement.mean
            position = f"{measure.axis.name} {part.worst_position}"
            return f"{short_title(measure.title)} {mean.effect:+.2g} at {position}, margin {mean.margin:.2g}"
        case BoundaryShift():
            moved = f"layer {part.baseline:.3g} to {part.measured:.3g}"
            return f"{part.kind} {part.index} from {moved}, margin {part.margin:.2g}"
        case IntervalFinding():
            words = [
                _NOT_MONOTONE if answer is Monotonicity.VIOLATED else answer
                for answer in (part.baseline, part.measured)
            ]
            phase = f"phase {PHASES[part.phase - 1]}, residual points {part.first}-{part.last}"
            return f"{phase}: {words[0]} before, {words[1]} now"


def short_title(title: str) -> str:
    """Return the title of a measure without the token, which is the same in all of them."""
    return title.replace(" of the last token", "")


def baseline_file_lines(description: str) -> list[str]:
    """Return two lines, so that the path is on a line of its own: the file, and the environment of the recording."""
    path, bracket, recorded = description.partition(".json (")
    return [unbroken(f"  baseline {path}.json"), f"    ({recorded}"] if bracket else [f"  {description}"]


def _sample_lines(finding: Finding, profile: Profile, offset: int) -> list[str]:
    agreement, tolerance = finding.agreement, finding.agreement.tolerance
    worst = ", ".join(
        unbroken(f"{profile.sample_ids[change.index]} {change.amount:+.3g} at {change.layer + offset}")
        for change in agreement.worst_samples[:3]
    )
    amount = float(np.max(tolerance.amount))
    # Counts of words and tokens must be equal, so their tolerance has no size.
    within = f"{amount:g} ({tolerance.reason})" if amount >= 1e-6 else f"({tolerance.reason})"
    return [
        f"  {agreement.beyond_tolerance} of {agreement.compared} samples are beyond the per-sample tolerance {within}; "
        f"{format_largest_change(finding)}; worst: {worst}"
    ]


def _unbroken_change(text: str) -> str:
    """Return a change that is not folded; a long one may be folded between the setting and its values."""
    if len(text) < MESSAGE_WIDTH - len("  since the baseline: "):
        return unbroken(text)
    name, colon, values = text.partition(": ")
    return f"{unbroken(name + colon.rstrip())} {unbroken(values)}"
