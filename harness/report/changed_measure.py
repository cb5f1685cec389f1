"""A measure that is not the baseline's, in words: where it moved, by how much, and which samples moved most."""

from __future__ import annotations

import numpy as np

from harness.analysis.mean_difference import Verdict, View
from harness.judgement.regression import Finding
from harness.judgement.results import largest_change
from harness.profile.profile import Profile
from harness.report.layout import kept, together


def changed_measure_lines(finding: Finding, profile: Profile) -> list[str]:
    """Return the numbers of one verdict in words, one line each, for the caller to fold.

    Args:
        finding: the verdict.
        profile: the run in which the measure was measured.
    """
    agreement, mean, axis = finding.agreement, finding.agreement.mean, finding.measure.axis
    where, worst_place = axis.words(finding.indices), finding.worst_place
    what = "differs" if agreement.verdict is Verdict.DIFFERS else "is no longer the same"
    if agreement.verdict is Verdict.INCONCLUSIVE and agreement.reproduced is not False:
        what = "may have moved"
    low, high = mean.interval
    view = "" if mean.view is View.LEVEL else " of the shape (each sample less its own mean)"
    numbers = together(
        f"{mean.effect:+.3g} at {axis.name} {worst_place}",
        f"({mean.confidence:.3%} interval {low:+.3g} to {high:+.3g}),",
        f"margin {mean.margin:.3g},",
        f"n = {mean.n} {'paired' if mean.paired else 'unpaired'}  -> {agreement.verdict.upper()}",
    )
    lines = [
        f"{finding.measure.title} of {profile.model} on {profile.dataset} {what} at {where}:",
        f"  mean difference{view} {numbers}",
    ]
    if agreement.beyond:
        lines += _sample_lines(finding, profile, worst_place - mean.layer)
    if agreement.verdict is Verdict.INCONCLUSIVE and mean.n_needed:
        lines.append(f"  about n = {mean.n_needed} would decide")
    return lines


def _sample_lines(finding: Finding, profile: Profile, offset: int) -> list[str]:
    agreement, tolerance = finding.agreement, finding.agreement.tolerance
    worst = ", ".join(
        kept(f"{profile.sample_ids[change.index]} {change.amount:+.3g} at {change.layer + offset}")
        for change in agreement.worst_samples[:3]
    )
    amount = float(np.max(tolerance.amount))
    # Counts of words and tokens are equal or not, so they have neither a size of tolerance nor noise.
    within = f"{amount:g} ({tolerance.reason})" if amount >= 1e-6 else f"({tolerance.reason})"
    return [
        f"  {agreement.beyond} of {agreement.compared} samples are beyond the per-sample tolerance {within}; "
        f"{largest_change(finding)}; worst: {worst}"
    ]
