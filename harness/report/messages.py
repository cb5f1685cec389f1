"""Assertion messages: what moved, where and by how much, what it was held against, and how to accept the change."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from harness.analysis.boundary_agreement import BoundaryAgreement, BoundaryShift
from harness.analysis.claims import PHASES
from harness.analysis.interval_agreement import IntervalAgreement, IntervalFinding, Question
from harness.analysis.mean_difference import Verdict, View
from harness.analysis.monotone import Answer, Monotonicity
from harness.baselines.store import Baseline
from harness.judgement.regression import Finding
from harness.judgement.results import largest_change
from harness.models.registry import MODELS
from harness.profile.profile import Profile
from harness.report.layout import MESSAGE_WIDTH, fold, join_unbroken, unbroken

# pytest writes this before the first line of a message.
_BEFORE = len("AssertionError: ")


def fold_message(lines: Iterable[str]) -> str:
    """Return the lines folded for the narrowest of terminals, the first one behind what pytest writes before it."""
    folded: list[str] = []
    for line in lines:
        deeper = 2 if line.startswith(" ") else 4
        folded += fold(line, MESSAGE_WIDTH, deeper, first_offset=0 if folded else _BEFORE)
    return "\n".join(folded)


def changed_measure_lines(finding: Finding, profile: Profile) -> list[str]:
    """Return the numbers of one verdict in words, one line each, for the caller to fold.

    Args:
        finding: the verdict.
        profile: the run in which the measure was measured.
    """
    agreement, mean, axis = finding.agreement, finding.agreement.mean, finding.measure.axis
    positions, worst_position = axis.describe(finding.indices), finding.worst_place
    change = "differs" if agreement.verdict is Verdict.DIFFERS else "is no longer the same"
    if agreement.verdict is Verdict.INCONCLUSIVE and agreement.reproduced is not False:
        change = "may have moved"
    low, high = mean.interval
    view = "" if mean.view is View.LEVEL else " of the shape (each sample less its own mean)"
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
        lines.append(f"  about n = {mean.n_needed} would decide")
    return lines


def boundary_lines(shift: BoundaryShift, agreement: BoundaryAgreement) -> list[str]:
    """Return how far a boundary moved, in one line."""
    low, high = shift.interval
    numbers = join_unbroken(
        f"({agreement.confidence:.4%} interval {low:g} to {high:g}),",
        f"margin {shift.margin:g},",
        f"n = {agreement.n} {'paired' if agreement.paired else 'unpaired'}",
    )
    moved = f"  {shift.kind} {shift.index} moved from layer {shift.baseline:g} to {shift.measured:g}:"
    return [f"{moved} {shift.effect:+g} {numbers}"]


def phase_lines(finding: IntervalFinding, agreement: IntervalAgreement) -> list[str]:
    """Return what held in a phase and what holds now, with the numbers of both."""
    answer_texts: dict[Answer, str] = {Monotonicity.VIOLATED: "not monotone"}
    before, after = (
        answer_texts.get(finding.baseline, finding.baseline),
        answer_texts.get(finding.measured, finding.measured),
    )
    if finding.verdict is Verdict.INCONCLUSIVE:
        after = f"no longer certain to be {before}"
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
    """Return what changed since a baseline, its file, and the command that accepts the change; a line each."""
    stored = baseline.profile
    compared = bool(profile.configuration and stored.configuration)
    same = f"same weights,{' same configuration,' if compared else ''} same environment"
    changes = "; ".join(map(_kept_change, profile.main_changes(stored))) or same
    if profile.configuration and not compared:
        changes += "; the baseline stores no configuration to compare"
    if baseline.by_id:
        return [f"  between the two models: {changes}", f"  held against {baseline.describe()}"]
    command = "the same command with --phase-update"
    if profile.model in MODELS:
        command = f"pytest cases/ --phase-model {profile.model} --phase-dataset {profile.dataset} --phase-update"
    # A command is there to be copied, however long it is.
    return [
        f"  since the baseline: {changes}",
        *baseline_file_lines(baseline.describe()),
        unbroken(f"  meant? {command}"),
    ]


def baseline_file_lines(description: str) -> list[str]:
    """Return a baseline in two lines, so that its path stands by itself: the file, and what it was recorded with."""
    path, bracket, recorded = description.partition(".json (")
    return [unbroken(f"  baseline {path}.json"), f"    ({recorded}"] if bracket else [f"  {description}"]


def _sample_lines(finding: Finding, profile: Profile, offset: int) -> list[str]:
    agreement, tolerance = finding.agreement, finding.agreement.tolerance
    worst = ", ".join(
        unbroken(f"{profile.sample_ids[change.index]} {change.amount:+.3g} at {change.layer + offset}")
        for change in agreement.worst_samples[:3]
    )
    amount = float(np.max(tolerance.amount))
    # Counts of words and tokens are equal or not, so they have neither a size of tolerance nor noise.
    within = f"{amount:g} ({tolerance.reason})" if amount >= 1e-6 else f"({tolerance.reason})"
    return [
        f"  {agreement.beyond_tolerance} of {agreement.compared} samples are beyond the per-sample tolerance {within}; "
        f"{largest_change(finding)}; worst: {worst}"
    ]


def _kept_change(text: str) -> str:
    """Return a change on one line, or the name of a setting and its values on a line each where it is long."""
    if len(text) < MESSAGE_WIDTH - len("  since the baseline: "):
        return unbroken(text)
    name, colon, values = text.partition(": ")
    return f"{unbroken(name + colon.rstrip())} {unbroken(values)}"
