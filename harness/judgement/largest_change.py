"""The largest change of a profile since its baseline, as text for the baseline's history."""

from __future__ import annotations

import math

from harness.baselines.store import Baseline
from harness.judgement.regression import Finding, compare
from harness.profile.measures import FAMILIES
from harness.profile.profile import Profile


def largest_change(profile: Profile, baseline: Baseline) -> str:
    """Return the measure with the largest change in margins, its size, its layer and its margin."""
    depths = baseline.profile.depth, profile.depth
    if depths[0] != depths[1]:
        return f"{depths[1]} layers instead of {depths[0]}"
    findings = [finding for family in FAMILIES.values() for finding in compare(profile, baseline, family).findings]
    if not findings:
        return "no measure can be compared"
    worst = max(findings, key=_excess)
    mean, axis = worst.agreement.mean, worst.measure.axis
    position = f"{axis.name} {worst.worst_position}"
    return f"{worst.measure.title} {mean.effect:+.2g} at {position}, margin {mean.margin:.2g}"


def _excess(finding: Finding) -> float:
    mean = finding.agreement.mean
    excess = abs(mean.effect) / mean.margin if mean.margin else math.nan
    return excess if math.isfinite(excess) else 0.0
