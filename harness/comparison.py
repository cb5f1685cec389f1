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
from harness.analysis.margins import CURVE_TOLERANCE, Pairing, Tolerance, pair_samples
from harness.analysis.mean_difference import Verdict
from harness.baselines import Baseline, as_floats
from harness.margin_table import boundary_values
from harness.profile import SHARE_GROUPS, Profile

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
class Inputs:
    """How the samples of a run and its baseline belong together.

    `changed_tokens` and `changed_pixels` are samples with the baseline's id but other model inputs. `same_set` says
    that both have the same samples, all with the same inputs: measures that relate samples to each other need it.
    `nested` says that one has only samples of the other, with the same inputs.
    """

    pairing: Pairing
    changed_tokens: tuple[str, ...]
    changed_pixels: tuple[str, ...]
    nested: bool
    same_set: bool

    @property
    def aligned(self) -> bool:
        """Whether rows lie side by side: few common samples still tell whether they reproduce."""
        return self.pairing.paired or self.nested

    @property
    def changed(self) -> str:
        """What changed, in words; empty where nothing did."""
        if not self.pairing.changed:
            return ""
        return (
            f"the inputs changed: of {len(self.pairing.changed)} samples with the baseline's ids, "
            f"{len(self.changed_tokens)} have other token ids and {len(self.changed_pixels)} other pixels "
            f"(first: {self.pairing.changed[0]}); look at the processor, the preprocessing or the data"
        )


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


def match_inputs(now: Profile, baseline: Profile) -> Inputs:
    """How the samples of two profiles belong together, by id and by the hash of each one's model inputs."""
    hashes = [list(zip(profile.token_hashes, profile.pixel_hashes, strict=True)) for profile in (now, baseline)]
    pairing = pair_samples(now.sample_ids, baseline.sample_ids, *hashes)
    place = {sample: row for row, sample in enumerate(baseline.sample_ids)}
    mine = {sample: row for row, sample in enumerate(now.sample_ids)}

    def changed(hashes_now: tuple[str, ...], hashes_then: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in pairing.changed if hashes_now[mine[name]] != hashes_then[place[name]])

    return Inputs(
        pairing=pairing,
        changed_tokens=changed(now.token_hashes, baseline.token_hashes),
        changed_pixels=changed(now.pixel_hashes, baseline.pixel_hashes),
        nested=len(pairing.now) == min(now.n, baseline.n) and not pairing.changed,
        same_set=len(pairing.now) == now.n == baseline.n and not pairing.changed,
    )


def not_reproducible(now: Profile, baseline: Baseline, inputs: Inputs) -> str:
    """Why the numbers cannot be asked to be the same sample by sample; empty where they can."""
    if baseline.summary_of is not None:
        return "the baseline is a summary of its samples: means are compared, unpaired"
    types = (now.environment.dtype, baseline.profile.environment.dtype)
    if baseline.calibration.tolerance("inter", narrow=_narrow(now, baseline)) is None:
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
    inputs = match_inputs(now, then)
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
    inputs = match_inputs(now, baseline.profile)
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
    inputs = match_inputs(now, then)
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
    return reproduced(x - y, _tolerance(now, baseline, "inter"))


def _tolerance(now: Profile, baseline: Baseline, measure: str) -> Tolerance:
    return baseline.calibration.tolerance(measure, narrow=_narrow(now, baseline)) or CURVE_TOLERANCE


def _agree(now: Profile, baseline: Baseline, measure: Measure, inputs: Inputs, reason: str) -> Agreement:
    x, y, clusters, then_clusters = _rows(now, baseline.profile, measure.name, inputs)
    margin = baseline.margins.get(measure.name)
    if margin is None:
        # What has no margin of its own counts whole words or tokens, and is judged as recall is.
        decide = agree_recall
    else:
        decide = partial(agree, margin=margin, tolerance=_tolerance(now, baseline, measure.name))
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
