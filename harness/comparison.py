"""A profile held against its baseline, measure by measure: the regression questions of a pair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from harness.analysis.agreement import Agreement, agree, agree_recall, combined, reproduced
from harness.analysis.boundary_agreement import BoundaryAgreement, agree_boundaries
from harness.analysis.curves import cluster_means
from harness.analysis.interval_agreement import IntervalAgreement, agree_intervals
from harness.analysis.margins import CURVE_TOLERANCE, Tolerance
from harness.analysis.mean_difference import Verdict
from harness.baselines import Baseline, as_floats
from harness.margin_table import boundary_values
from harness.matched_inputs import Inputs, match_inputs
from harness.profile import SHARE_GROUPS, Profile
from harness.reference import Reference

ALPHA_RUN = 0.01
DECLARED_PAIRS = 4


@dataclass(frozen=True, slots=True)
class Measure:
    """One measured array and what to call it. `axis` says what its points are: residual points, or layers."""

    name: str
    title: str
    axis: str = "residual point"


@dataclass(frozen=True, slots=True)
class Family:
    """Measures that one case judges together."""

    name: str
    title: str
    measures: tuple[Measure, ...]


FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        Family(
            "inter",
            "inter-modal similarity",
            (
                Measure("inter", "inter-modal similarity"),
                Measure("inter_instruction", "inter-modal similarity with the instruction's tokens"),
                Measure("inter_adjusted", "anisotropy-adjusted inter-modal similarity"),
            ),
        ),
        Family(
            "intra",
            "intra-modal similarity",
            tuple(Measure(name, f"similarity within the {name} tokens") for name in ("image", "text", "instruction")),
        ),
        Family(
            "attention",
            "attention of the last token",
            tuple(
                Measure(f"{kind}_{group}", f"{words} of the last token on {group}", "layer")
                for kind, words in (("norm", "norm-based attention"), ("weight", "attention weight"))
                for group in SHARE_GROUPS
            ),
        ),
        Family(
            "lens",
            "LogitLens",
            (
                Measure("recall_1", "LogitLens recall (top 1)"),
                Measure("recall_5", "LogitLens recall (top 5)"),
                Measure("exit_agreement", "exit agreement of the last token"),
            ),
        ),
    )
}
# Beside the measures: the boundaries of the phases, and what holds within each phase.
PHASE_ASSERTIONS = 2
# A later release may judge more measures; the number is declared, so that a verdict is no function of the filter.
DECLARED_ASSERTIONS = DECLARED_PAIRS * (sum(len(family.measures) for family in FAMILIES.values()) + PHASE_ASSERTIONS)
ALPHA_DIFF = ALPHA_RUN / DECLARED_ASSERTIONS


@dataclass(frozen=True, slots=True)
class Finding:
    """The verdict on one measure."""

    measure: Measure
    agreement: Agreement


@dataclass(frozen=True, slots=True)
class Comparison:
    """The verdict on a family: that of its worst measure."""

    family: Family
    findings: tuple[Finding, ...]
    inputs: Inputs
    reproducible: str

    @property
    def verdict(self) -> Verdict:
        """Differs before inconclusive, inconclusive before equivalent, equivalent before reproduces."""
        return combined([finding.agreement.verdict for finding in self.findings])


def not_reproducible(now: Profile, baseline: Baseline, inputs: Inputs) -> str:
    """Why the numbers cannot be asked to be the same sample by sample; empty where they can."""
    if baseline.summary_of is not None:
        return "the baseline is a summary of its samples: means are compared, unpaired"
    types = (now.environment.dtype, baseline.profile.environment.dtype)
    if isinstance(baseline, Reference) and inputs.changed:
        return "the two models are not given the same inputs"
    if calibrated_tolerance(now, baseline, "inter") is None:
        return (
            f"{types[0]} against the baseline's {types[1]}: no per-sample tolerance is calibrated for these; record "
            "one with --phase-calibrate"
        )
    if not len(inputs.pairing.now):
        return "no sample is the baseline's; draw the same ones with the baseline's seed"
    return ""


def other_type(now: Profile, baseline: Profile) -> str:
    """Why the numbers are not expected to be the same sample by sample; empty where they are."""
    types = (now.environment.dtype, baseline.environment.dtype)
    return "" if types[0] == types[1] else f"{types[0]} against the baseline's {types[1]} need only be equivalent"


def _narrow(now: Profile, baseline: Baseline) -> bool:
    """Whether one of the two is in a type narrower than float32."""
    return bool({"bfloat16", "float16"} & {now.environment.dtype, baseline.profile.environment.dtype})


def compare(now: Profile, baseline: Baseline, family: Family) -> Comparison:
    """The verdicts on the measures of a family, by the one decision rule.

    Samples with the baseline's ids and inputs are compared in pairs; where too few are, means are.

    Raises:
        ValueError: the profile and the baseline are not of the same depth.
    """
    then = baseline.profile
    inputs = matched(now, baseline)
    reason = not_reproducible(now, baseline, inputs)
    findings = []
    for measure in family.measures:
        # The adjustment of one sample is made of all the others: with fewer of them it is another number.
        why = reason or ("other samples take part" if measure.name == "inter_adjusted" and not inputs.same_set else "")
        findings.append(Finding(measure, _agree(now, baseline, measure, inputs, why)))
    return Comparison(family, tuple(findings), inputs, reason or other_type(now, then))


def compare_boundaries(now: Profile, baseline: Baseline) -> BoundaryAgreement:
    """The verdict on turning points and half-heights of the inter-modal similarity.

    Where the curves reproduce sample by sample their boundaries do, however uncertain these are.
    """
    inputs = matched(now, baseline)
    x, y, clusters, then_clusters = _rows(now, baseline.profile, "inter", inputs)
    found = agree_boundaries(
        x,
        y,
        paired=inputs.aligned,
        alpha_diff=ALPHA_DIFF,
        margins=boundary_values(baseline.margins) or None,
        clusters=clusters,
        baseline_clusters=then_clusters,
    )
    return replace(found, verdict=Verdict.REPRODUCES) if _same_curve(now, baseline, inputs) else found


def compare_intervals(now: Profile, baseline: Baseline) -> IntervalAgreement:
    """The verdict on what held in each phase of the baseline: that it is there, and that it goes one way.

    The phases are those of the whole baseline, also where this run has fewer of its samples. Where the curves reproduce
    sample by sample all answers do.
    """
    then = baseline.profile
    inputs = matched(now, baseline)
    x, y, clusters, then_clusters = _rows(now, then, "inter", inputs)
    found = agree_intervals(
        x,
        y,
        paired=inputs.aligned,
        alpha_diff=ALPHA_DIFF,
        noise=max(float(np.max(CURVE_TOLERANCE.amount)), baseline.calibration.mean_noise("inter")),
        reference=cluster_means(as_floats(then["inter"]), then.clusters).mean(axis=0),
        clusters=clusters,
        baseline_clusters=then_clusters,
    )
    return replace(found, verdict=Verdict.REPRODUCES) if _same_curve(now, baseline, inputs) else found


def _same_curve(now: Profile, baseline: Baseline, inputs: Inputs) -> bool:
    """Whether the inter-modal similarity reproduces, so that whatever is read off it does."""
    if not inputs.aligned or not_reproducible(now, baseline, inputs):
        return False
    x, y, _, _ = _rows(now, baseline.profile, "inter", inputs)
    return reproduced(x - y, tolerance_of(now, baseline, "inter"))


def calibrated_tolerance(now: Profile, baseline: Baseline, measure: str) -> Tolerance | None:
    """When a sample of this measure is the same as the baseline's; None where nothing was calibrated that tells."""
    if isinstance(baseline, Reference) and now.environment == baseline.profile.environment:
        # Measured here and now on both sides, so there is no noise of another environment to allow for.
        return CURVE_TOLERANCE
    return baseline.calibration.tolerance(measure, narrow=_narrow(now, baseline))


def tolerance_of(now: Profile, baseline: Baseline, measure: str) -> Tolerance:
    """When a sample of this measure is the same as the baseline's: as calibrated, else as declared."""
    return calibrated_tolerance(now, baseline, measure) or CURVE_TOLERANCE


def matched(now: Profile, baseline: Baseline) -> Inputs:
    """How the samples of a profile and of what it is held against belong together."""
    return match_inputs(now, baseline.profile, by_id=isinstance(baseline, Reference))


def _agree(now: Profile, baseline: Baseline, measure: Measure, inputs: Inputs, reason: str) -> Agreement:
    x, y, clusters, then_clusters = _rows(now, baseline.profile, measure.name, inputs)
    margin = baseline.margins.get(measure.name)
    if margin is None:
        # What has no margin of its own counts whole words or tokens, and is judged as recall is.
        decide = agree_recall
    else:
        decide = partial(agree, margin=margin, tolerance=tolerance_of(now, baseline, measure.name))
    return decide(
        x,
        y,
        paired=inputs.aligned,
        alpha_diff=ALPHA_DIFF,
        reproducible=not reason,
        reason=reason,
        clusters=clusters,
        baseline_clusters=then_clusters,
    )


def _rows(
    now: Profile, then: Profile, name: str, inputs: Inputs
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], tuple[str, ...]]:
    x, y = as_floats(now[name]), as_floats(then[name])
    if not inputs.aligned:
        return x, y, now.clusters, then.clusters
    rows, rows_then = inputs.pairing.now, inputs.pairing.baseline
    clusters = tuple(now.clusters[row] for row in rows)
    return x[rows], y[rows_then], clusters, tuple(then.clusters[row] for row in rows_then)
