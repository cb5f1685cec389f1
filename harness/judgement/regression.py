"""Comparison of a profile with its baseline, measure by measure."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from harness.analysis.agreement import Agreement, combine_verdicts, judge_agreement, judge_recall, samples_reproduce
from harness.analysis.boundary_agreement import BoundaryAgreement, judge_boundaries
from harness.analysis.curves import cluster_means
from harness.analysis.interval_agreement import DECLARED_NOISE, IntervalAgreement, judge_intervals
from harness.analysis.mean_difference import MeanDifference, Sides, Verdict, View
from harness.baselines.margin_table import boundary_margin_values
from harness.baselines.store import Baseline
from harness.judgement.pairing import InputMatch, common_values, match_inputs
from harness.judgement.tolerances import calibrated_tolerance, sample_tolerance
from harness.profile.measures import KNOCKOUT_FAMILY, KNOCKOUT_WINDOW, MEASURES, RECALL, Family, Measure
from harness.profile.profile import Profile, as_floats

OffCurve = TypeVar("OffCurve", BoundaryAgreement, IntervalAgreement)

ALPHA_RUN = 0.01
DECLARED_PAIRS = 4


# The phase boundaries, and the presence and monotonicity of the phases, are judged in addition to the measures.
PHASE_ASSERTIONS = 2
# The number is declared and does not count the tests that run, so a test filter cannot change a verdict.
DECLARED_ASSERTIONS = DECLARED_PAIRS * (len(MEASURES) + PHASE_ASSERTIONS)
ALPHA_DIFF = ALPHA_RUN / DECLARED_ASSERTIONS


@dataclass(frozen=True, slots=True)
class Finding:
    """The verdict on one measure."""

    measure: Measure
    agreement: Agreement

    @property
    def indices(self) -> tuple[int, ...]:
        """Indices at which the curve differs; if there are none, the index with the largest excess."""
        return self.agreement.layers or (self.agreement.mean.layer,)

    @property
    def worst_position(self) -> int:
        """Position with the largest excess, numbered as in the output."""
        return self.agreement.mean.layer + self.measure.axis.first


@dataclass(frozen=True, slots=True)
class Comparison:
    """The verdict on a family of measures, taken from its worst measure.

    `irreproducible_reason` explains why samples need not reproduce; it is empty if they must. `not_compared` holds the
    reason for each measure that could not be compared; a profile or a baseline may lack any measure.
    """

    family: Family
    findings: tuple[Finding, ...]
    inputs: InputMatch
    irreproducible_reason: str
    not_compared: Mapping[str, str] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """The first that occurs of differs, inconclusive, equivalent and reproduces; "not compared" if none does."""
        if not self.findings:
            return Verdict.NOT_COMPARED
        return combine_verdicts([finding.agreement.verdict for finding in self.findings])


def irreproducible_reason(measured: Profile, baseline: Baseline, inputs: InputMatch) -> str:
    """Return the reason why samples cannot be compared one by one; empty if they can."""
    if baseline.summarised_samples is not None:
        return "the baseline is a summary of its samples: means are compared, unpaired"
    if baseline.by_id and inputs.changed:
        return "the two models receive different inputs"
    if calibrated_tolerance(measured, baseline, "inter") is None:
        owner, remedy = baseline.uncalibrated
        types = f"{measured.environment.dtype} against {owner} {baseline.profile.environment.dtype}"
        return f"{types}: no per-sample tolerance is calibrated for these; {remedy}"
    if not len(inputs.pairing.measured):
        return "no sample is in the baseline; draw the same samples with the baseline's seed"
    return ""


def dtype_difference(measured: Profile, baseline: Profile) -> str:
    """Return the reason why different data types need only be equivalent; empty if the types are the same."""
    types = (measured.environment.dtype, baseline.environment.dtype)
    return "" if types[0] == types[1] else f"{types[0]} against the baseline's {types[1]} need only be equivalent"


def compare(measured: Profile, baseline: Baseline, family: Family, only: Container[str] | None = None) -> Comparison:
    """Return the verdicts on the measures of a family.

    Samples with the baseline's ids and inputs are compared in pairs. If there are too few, means are compared.

    Args:
        measured: the measured profile.
        baseline: the baseline to compare it with.
        family: the family of measures.
        only: the names of the measures to judge; None judges all.

    Raises:
        ValueError: the profile and the baseline have different depths.
    """
    baseline_profile = baseline.profile
    inputs = match_baseline(measured, baseline)
    reason = irreproducible_reason(measured, baseline, inputs)
    findings: list[Finding] = []
    not_compared = _absent_measures(family, measured, baseline)
    for measure in family.measures:
        if measure.name in not_compared or (only is not None and measure.name not in only):
            continue
        sides = _sides(measured, baseline_profile, measure.name, inputs)
        if sides is None:
            not_compared[measure.name] = (
                f"each sample is adjusted over the other {baseline_profile.n - 1} in the baseline and the other "
                f"{measured.n - 1} here, of which {len(inputs.pairing.measured)} are common"
            )
        else:
            findings.append(Finding(measure, _judge_measure(measured, baseline, measure, inputs, sides, reason)))
    return Comparison(
        family, tuple(findings), inputs, reason or dtype_difference(measured, baseline_profile), not_compared
    )


def _absent_measures(family: Family, measured: Profile, baseline: Baseline) -> dict[str, str]:
    """Return the reason for each measure that the profile or the baseline lacks; the profile's reason comes first.

    Losses in windows of other layers are not comparable.
    """
    windows = [profile.declared.get(KNOCKOUT_WINDOW) for profile in (measured, baseline.profile)]
    if family.name == KNOCKOUT_FAMILY and None not in windows and windows[0] != windows[1]:
        reason = f"windows of {windows[0]} layers here, of {windows[1]} in the baseline"
        return {measure.name: reason for measure in family.measures}
    return {
        measure.name: f"recall is left out {where}: {profile.no_recall}" if measure.kind is RECALL else reason
        for profile, where, reason in (
            (baseline.profile, "in the baseline", baseline.absence),
            (measured, "here", "not measured here"),
        )
        for measure in family.measures
        if not profile.measured((measure.name,))
    }


def compare_boundaries(measured: Profile, baseline: Baseline) -> BoundaryAgreement:
    """Return the verdict on turning points and half-heights of the inter-modal similarity."""
    return _read_off(
        measured, baseline, partial(judge_boundaries, margins=boundary_margin_values(baseline.margins) or None)
    )


def compare_intervals(measured: Profile, baseline: Baseline) -> IntervalAgreement:
    """Return the verdict on the presence and monotonicity of each phase of the baseline.

    The phases are read from all samples of the baseline, even if this run has fewer.
    """
    baseline_profile = baseline.profile
    noise = max(DECLARED_NOISE, baseline.calibration.mean_noise("inter"))
    reference = cluster_means(as_floats(baseline_profile["inter"]), baseline_profile.clusters).mean(axis=0)
    return _read_off(measured, baseline, partial(judge_intervals, noise=noise, reference=reference))


def _read_off(measured: Profile, baseline: Baseline, decide: Callable[..., OffCurve]) -> OffCurve:
    """Judge a property of the inter-modal curve; if all samples reproduce, the verdict is that it reproduces."""
    inputs = match_baseline(measured, baseline)
    sides = _sides(measured, baseline.profile, "inter", inputs)
    assert sides is not None
    agreement = decide(sides, alpha_diff=ALPHA_DIFF)
    expected = sides.paired and not irreproducible_reason(measured, baseline, inputs)
    reproduces = expected and samples_reproduce(
        sides.measured - sides.baseline, sample_tolerance(measured, baseline, "inter")
    )
    return replace(agreement, verdict=Verdict.REPRODUCES) if reproduces else agreement


def match_baseline(measured: Profile, baseline: Baseline) -> InputMatch:
    """Match the samples of a profile and a baseline."""
    return match_inputs(measured, baseline.profile, by_id=baseline.by_id)


def mean_difference(measured: Profile, baseline: Baseline, measure: str) -> MeanDifference | None:
    """Return the mean difference of a measure, from the samples that `compare` uses; None if there are none.

    Raises:
        ValueError: the profile and the baseline have different depths.
    """
    sides = _sides(measured, baseline.profile, measure, match_baseline(measured, baseline))
    return None if sides is None else MeanDifference.from_sides(sides, View.LEVEL)


def _judge_measure(
    measured: Profile, baseline: Baseline, measure: Measure, inputs: InputMatch, sides: Sides, reason: str
) -> Agreement:
    if measure.kind.margin is None:
        # A measure without a margin counts whole words or tokens, so it is judged like recall.
        decide = judge_recall
    else:
        margin, tolerance = baseline.margins[measure.name], sample_tolerance(measured, baseline, measure.name)
        decide = partial(judge_agreement, margin=margin, tolerance=tolerance)
        if not reason and calibrated_tolerance(measured, baseline, measure.name) is None:
            reason = "no per-sample tolerance of this measure is calibrated for 16-bit types"
    agreement = decide(sides, alpha_diff=ALPHA_DIFF, reproducible=not reason, reason=reason)
    # Indices count the common samples; translate them to rows of the run.
    worst = (replace(change, index=int(inputs.pairing.measured[change.index])) for change in agreement.worst_samples)
    return replace(agreement, worst_samples=tuple(worst))


def _sides(measured: Profile, baseline_profile: Profile, measure: str, inputs: InputMatch) -> Sides | None:
    """Return the values of the common samples in pairs, else all values; None if they cannot be compared."""
    if not inputs.aligned:
        return Sides.from_curves(
            measured[measure], baseline_profile[measure], False, measured.clusters, baseline_profile.clusters
        )
    values = common_values(measured, baseline_profile, measure, inputs.pairing)
    if values is None:
        return None
    return Sides.from_curves(*values, True, [measured.clusters[row] for row in inputs.pairing.measured])
