"""A profile held against its baseline, measure by measure: the regression questions of a pair."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from harness.analysis.agreement import Agreement, combine_verdicts, judge_agreement, judge_recall, samples_reproduce
from harness.analysis.boundary_agreement import BoundaryAgreement, judge_boundaries
from harness.analysis.curves import cluster_means
from harness.analysis.interval_agreement import DECLARED_NOISE, IntervalAgreement, judge_intervals
from harness.analysis.mean_difference import Sides, Verdict
from harness.baselines.margin_table import boundary_margin_values
from harness.baselines.store import Baseline
from harness.judgement.pairing import InputMatch, common_values, match_inputs
from harness.judgement.tolerances import calibrated_tolerance, sample_tolerance
from harness.profile.measures import MEASURES, Family, Measure
from harness.profile.profile import Profile, as_floats

OffCurve = TypeVar("OffCurve", BoundaryAgreement, IntervalAgreement)

ALPHA_RUN = 0.01
DECLARED_PAIRS = 4


# Beside the measures: the boundaries of the phases, and what holds within each phase.
PHASE_ASSERTIONS = 2
# A later release may judge more measures; the number is declared, so that a verdict is no function of the filter.
DECLARED_ASSERTIONS = DECLARED_PAIRS * (len(MEASURES) + PHASE_ASSERTIONS)
ALPHA_DIFF = ALPHA_RUN / DECLARED_ASSERTIONS


@dataclass(frozen=True, slots=True)
class Finding:
    """The verdict on one measure."""

    measure: Measure
    agreement: Agreement

    @property
    def indices(self) -> tuple[int, ...]:
        """Where the curve differs, or may differ."""
        return self.agreement.layers or (self.agreement.mean.layer,)

    @property
    def worst_position(self) -> int:
        """The place with the largest excess, as readers count it."""
        return self.agreement.mean.layer + self.measure.axis.first


@dataclass(frozen=True, slots=True)
class Comparison:
    """The verdict on a family: that of its worst measure.

    `irreproducible_reason` says why the numbers need not be the same sample by sample, and is empty where they must.
    `not_compared` gives the reason by measure.
    """

    family: Family
    findings: tuple[Finding, ...]
    inputs: InputMatch
    irreproducible_reason: str
    not_compared: Mapping[str, str] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """Differs before inconclusive, inconclusive before equivalent, equivalent before reproduces."""
        return combine_verdicts([finding.agreement.verdict for finding in self.findings])


def irreproducible_reason(now: Profile, baseline: Baseline, inputs: InputMatch) -> str:
    """Why the numbers cannot be asked to be the same sample by sample; empty where they can."""
    if baseline.summarised_samples is not None:
        return "the baseline is a summary of its samples: means are compared, unpaired"
    if baseline.by_id and inputs.changed:
        return "the two models are not given the same inputs"
    if calibrated_tolerance(now, baseline, "inter") is None:
        whose, remedy = baseline.uncalibrated
        types = f"{now.environment.dtype} against {whose} {baseline.profile.environment.dtype}"
        return f"{types}: no per-sample tolerance is calibrated for these; {remedy}"
    if not len(inputs.pairing.measured):
        return "no sample is the baseline's; draw the same ones with the baseline's seed"
    return ""


def dtype_difference(now: Profile, baseline: Profile) -> str:
    """Why the numbers are not expected to be the same sample by sample; empty where they are."""
    types = (now.environment.dtype, baseline.environment.dtype)
    return "" if types[0] == types[1] else f"{types[0]} against the baseline's {types[1]} need only be equivalent"


def compare(now: Profile, baseline: Baseline, family: Family, only: Container[str] | None = None) -> Comparison:
    """Return the verdicts on the measures of a family, by the one decision rule.

    Samples with the baseline's ids and inputs are compared in pairs; where too few are, means are.

    Args:
        now: what was measured.
        baseline: what it is held against.
        family: of the measures.
        only: the names of those to judge; None judges all of them.

    Raises:
        ValueError: the profile and the baseline are not of the same depth.
    """
    then = baseline.profile
    inputs = match_baseline(now, baseline)
    reason = irreproducible_reason(now, baseline, inputs)
    findings: list[Finding] = []
    not_compared = _without_recall(family, now, then)
    for measure in family.measures:
        if measure.name in not_compared or (only is not None and measure.name not in only):
            continue
        sides = _sides(now, then, measure.name, inputs)
        if sides is None:
            not_compared[measure.name] = (
                f"each sample is adjusted over the other {then.n - 1} in the baseline and the other {now.n - 1} here, "
                f"of which {len(inputs.pairing.measured)} are common"
            )
        else:
            findings.append(Finding(measure, _judge_measure(now, baseline, measure, inputs, sides, reason)))
    return Comparison(family, tuple(findings), inputs, reason or dtype_difference(now, then), not_compared)


def _without_recall(family: Family, now: Profile, then: Profile) -> dict[str, str]:
    """The measures of a family that one of the two profiles has not, with the reason: only recall is ever left out."""
    names = [measure.name for measure in family.measures]
    return {
        name: f"recall is left out {where}: {profile.no_recall}"
        for where, profile in (("in the baseline", then), ("here", now))
        for name in names
        if name not in profile.measured(names)
    }


def compare_boundaries(now: Profile, baseline: Baseline) -> BoundaryAgreement:
    """Return the verdict on turning points and half-heights of the inter-modal similarity."""
    return _read_off(now, baseline, partial(judge_boundaries, margins=boundary_margin_values(baseline.margins) or None))


def compare_intervals(now: Profile, baseline: Baseline) -> IntervalAgreement:
    """Return the verdict on what held in each phase of the baseline: that it is there, and that it goes one way.

    The phases are those of the whole baseline, also where this run has fewer of its samples.
    """
    then = baseline.profile
    noise = max(DECLARED_NOISE, baseline.calibration.mean_noise("inter"))
    reference = cluster_means(as_floats(then["inter"]), then.clusters).mean(axis=0)
    return _read_off(now, baseline, partial(judge_intervals, noise=noise, reference=reference))


def _read_off(now: Profile, baseline: Baseline, decide: Callable[..., OffCurve]) -> OffCurve:
    """A verdict on what is read off the inter-modal curve: where that reproduces it does, however uncertain it is."""
    inputs = match_baseline(now, baseline)
    sides = _sides(now, baseline.profile, "inter", inputs)
    assert sides is not None
    found = decide(sides, alpha_diff=ALPHA_DIFF)
    asked = sides.paired and not irreproducible_reason(now, baseline, inputs)
    same = asked and samples_reproduce(sides.measured - sides.baseline, sample_tolerance(now, baseline, "inter"))
    return replace(found, verdict=Verdict.REPRODUCES) if same else found


def match_baseline(now: Profile, baseline: Baseline) -> InputMatch:
    """How the samples of a profile and of what it is held against belong together."""
    return match_inputs(now, baseline.profile, by_id=baseline.by_id)


def _judge_measure(
    now: Profile, baseline: Baseline, measure: Measure, inputs: InputMatch, sides: Sides, reason: str
) -> Agreement:
    margin = baseline.margins.get(measure.name)
    if margin is None:
        # What has no margin of its own counts whole words or tokens, and is judged as recall is.
        decide = judge_recall
    else:
        decide = partial(judge_agreement, margin=margin, tolerance=sample_tolerance(now, baseline, measure.name))
    agreement = decide(sides, alpha_diff=ALPHA_DIFF, reproducible=not reason, reason=reason)
    # Rows were those of the common samples; readers know the samples of the run.
    worst = (replace(change, index=int(inputs.pairing.measured[change.index])) for change in agreement.worst_samples)
    return replace(agreement, worst_samples=tuple(worst))


def _sides(now: Profile, then: Profile, name: str, inputs: InputMatch) -> Sides | None:
    """The values of a measure in pairs where samples are common, else all; None where they cannot be compared."""
    if not inputs.aligned:
        return Sides.from_curves(now[name], then[name], False, now.clusters, then.clusters)
    values = common_values(now, then, name, inputs.pairing)
    if values is None:
        return None
    return Sides.from_curves(*values, True, [now.clusters[row] for row in inputs.pairing.measured])
