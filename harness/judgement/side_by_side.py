"""Comparison of two models on the same samples: their phases, and the layers at which they differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, astuple, dataclass, field
from typing import Any, ClassVar

import numpy as np

from harness.analysis.control_difference import DifferenceBand
from harness.analysis.margins import Tolerance
from harness.analysis.mean_difference import Verdict
from harness.analysis.turning_points import BoundaryInterval
from harness.baselines.store import Baseline
from harness.judgement.pairing import InputMatch, common_values
from harness.judgement.phases import interval_record, json_number, judge_claims, phase_reading, relative_depth
from harness.judgement.regression import (
    Finding,
    compare,
    compare_boundaries,
    compare_intervals,
    irreproducible_reason,
    match_baseline,
)
from harness.judgement.tolerances import locating_tolerance
from harness.judgement.weights import WeightChange, WeightParts, weight_change
from harness.profile.configuration_changes import ConfigurationChanges
from harness.profile.measures import FAMILIES, KINDS, MEASURES, Axis, MeasureKind
from harness.profile.profile import Profile

_TRACED = {kind.title: kind for kind in KINDS if kind.traced}


@dataclass(frozen=True, slots=True)
class ComparedModel:
    """A compared model: its size, its turning points in layers, and the verdicts on the paper's claims.

    `segments` is the number of confirmed monotone segments. `first_token` describes the first token that is not an
    image token as a BOS or as text; it is empty if unknown.
    """

    model: str
    n: int
    depth: int
    prompt: str
    first_token: str
    turning_points: tuple[BoundaryInterval, ...]
    segments: int
    claims: Mapping[str, str]

    def relative(self) -> tuple[BoundaryInterval, ...]:
        """Return the turning points as shares of the depth."""
        return tuple(relative_depth(point, self.depth) for point in self.turning_points)


@dataclass(frozen=True, slots=True)
class Trace:
    """The last position up to which readings are the same for every sample.

    Positions are residual points, or layers for attention. Up to `same_until`, changes are within `tolerance`. Up to
    `exact_until`, readings are bit-identical. Both are one less than the first position if readings differ from the
    start. `last` is the last position of the curve.
    """

    name: str
    same_until: int
    exact_until: int
    last: int
    tolerance: float

    @property
    def axis(self) -> Axis:
        """The axis of the positions."""
        return _TRACED[self.name].axis


@dataclass(frozen=True, slots=True, repr=False)
class RecordedBaseline(Baseline):
    """A baseline or another model from a record, which holds its means, and the extent of equal readings as `traces`.

    `source` names its file or model. `difference` is the difference of the inter-modal similarity to another model.
    """

    source: Mapping[str, str] = field(default_factory=dict)
    traces: tuple[Trace, ...] = ()
    difference: DifferenceBand | None = None

    @property
    def label(self) -> str:
        """The name in legends."""
        return self.source.get("model", "baseline")

    @property
    def record_source(self) -> dict[str, str]:
        """The file, or the model's name."""
        return dict(self.source)

    def describe(self) -> str:
        """Return the file or the model, and the environment of its measurement."""
        return f"{self.path} ({self.profile.environment})"


@dataclass(frozen=True, slots=True, repr=False)
class RecordedReference(RecordedBaseline):
    """Another model of the same run, from a record."""

    by_id: ClassVar[bool] = True
    requires_reproduction: ClassVar[bool] = False
    same_run: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class SideBySide:
    """A comparison of two models on one dataset.

    `inputs` matches their samples. `configuration` and `environment` list further differences. `verdicts` holds the
    regression verdicts by family, `traces` the extent of equal readings, and `beyond_margin` the measures that differ.
    These three are empty for models of different depth. `not_traced` is the reason why `traces` is empty. `weights` is
    None if the hashes of the weights are unknown.
    """

    dataset: str
    measured: ComparedModel
    other: ComparedModel
    inputs: InputMatch
    configuration: ConfigurationChanges
    environment: tuple[str, ...]
    verdicts: Mapping[str, Verdict]
    traces: tuple[Trace, ...]
    not_traced: str
    beyond_margin: tuple[Finding, ...]
    weights: WeightChange | None

    @property
    def same_depth(self) -> bool:
        """True if the models can be compared layer by layer."""
        return self.measured.depth == self.other.depth


def side_by_side(
    profile: Profile, reference: Baseline, weights: tuple[WeightParts, WeightParts] | None = None
) -> SideBySide:
    """Return the comparison of two models, layer by layer if their depth is the same.

    Args:
        profile: the profile of one model.
        reference: the other model, on the same dataset.
        weights: the hashes of both models' weights, by part.

    Raises:
        ValueError: the profiles belong to different datasets.
    """
    other = reference.profile
    if profile.dataset != other.dataset:
        raise ValueError(f"{profile.pair} and {other.pair} are of different datasets: measure both models on one.")
    inputs = match_baseline(profile, reference)
    same_depth = profile.depth == other.depth
    families = [compare(profile, reference, family) for family in FAMILIES.values()] if same_depth else []
    verdicts = {comparison.family.name: comparison.verdict for comparison in families if comparison.findings}
    if same_depth:
        verdicts["boundaries"] = compare_boundaries(profile, reference).verdict
        verdicts["intervals"] = compare_intervals(profile, reference).verdict
    reason = irreproducible_reason(profile, reference, inputs) if same_depth else "the models are of different depth"
    return SideBySide(
        dataset=profile.dataset,
        measured=_side(profile),
        other=_side(other),
        inputs=inputs,
        configuration=profile.configuration_changes(other),
        environment=tuple(profile.environment.differences(other.environment)),
        verdicts=verdicts,
        traces=reading_traces(profile, reference),
        not_traced=reason,
        beyond_margin=tuple(
            finding
            for comparison in families
            for finding in comparison.findings
            if finding.agreement.verdict is Verdict.DIFFERS
        ),
        weights=None if weights is None else weight_change(*weights),
    )


def side_by_side_record(numbers: SideBySide) -> dict[str, Any]:
    """Return the numbers as JSON types."""
    return {
        "dataset": numbers.dataset,
        "models": {side.model: _side_record(side) for side in (numbers.measured, numbers.other)},
        "model": numbers.measured.model,
        "against": numbers.other.model,
        "common_samples": len(numbers.inputs.pairing.measured),
        "paired": numbers.inputs.pairing.paired,
        "inputs": numbers.inputs.changed,
        "configuration": numbers.configuration.lines(),
        "configuration_counts": list(map(len, astuple(numbers.configuration))),
        "environment": list(numbers.environment),
        "verdicts": {name: str(verdict) for name, verdict in numbers.verdicts.items()},
        "same_until": {trace.name: asdict(trace) for trace in numbers.traces},
        "not_traced": numbers.not_traced,
        "beyond_margin": [
            {
                "family": finding.measure.family,
                "title": finding.measure.title,
                "axis": finding.measure.axis.name,
                "positions": finding.measure.axis.positions(finding.indices),
                "effect": json_number(finding.agreement.mean.effect),
                "at": finding.worst_position,
                "margin": json_number(finding.agreement.mean.margin),
            }
            for finding in numbers.beyond_margin
        ],
        "weights": None if numbers.weights is None else asdict(numbers.weights),
    }


def _side(profile: Profile) -> ComparedModel:
    reading = phase_reading(profile)
    return ComparedModel(
        model=profile.model,
        n=profile.n,
        depth=profile.depth,
        prompt=str(profile.declared.get("prompt", "")),
        first_token=str(profile.declared.get("first_token", "")),
        turning_points=tuple(reading.boundaries.turning_points),
        segments=reading.any_segments.count,
        claims={name: str(claim.verdict) for name, claim in judge_claims(reading).items()},
    )


def _side_record(side: ComparedModel) -> dict[str, Any]:
    return {
        "n": side.n,
        "layers": side.depth,
        "prompt": side.prompt,
        "first_token": side.first_token,
        "turning_points": list(map(interval_record, side.turning_points)),
        "relative_depth": list(map(interval_record, side.relative())),
        "confirmed_segment_count": side.segments,
        "claims": dict(side.claims),
    }


def reading_traces(profile: Profile, baseline: Baseline) -> tuple[Trace, ...]:
    """Return the extent of equal readings of each kind; empty if samples cannot be compared one by one.

    A baseline from a record returns the recorded ones.
    """
    if isinstance(baseline, RecordedBaseline):
        return baseline.traces
    inputs = match_baseline(profile, baseline)
    if profile.depth != baseline.profile.depth or inputs.changed or irreproducible_reason(profile, baseline, inputs):
        return ()
    common = profile.measured(baseline.profile.measured(MEASURES))
    return tuple(
        _trace(profile, baseline, kind, measures, inputs)
        for kind in _TRACED.values()
        if (measures := [name for name in common if MEASURES[name].kind is kind])
    )


def _trace(
    profile: Profile, reference: Baseline, kind: MeasureKind, measures: Iterable[str], inputs: InputMatch
) -> Trace:
    """Return the extent of equal readings over all measures of one kind."""
    first = kind.axis.first
    same, exact, largest_tolerance = [], [], 0.0
    for measure in measures:
        values = common_values(profile, reference.profile, measure, inputs.pairing)
        if values is None:
            continue
        tolerance = locating_tolerance(profile, reference, measure)
        change = np.abs(values[0] - values[1])
        same.append(first + _length(change, tolerance) - 1)
        exact.append(first + _length(change, Tolerance(0.0, 1.0)) - 1)
        largest_tolerance = max(largest_tolerance, float(np.max(tolerance.amount)))
        last = first + change.shape[1] - 1
    return Trace(kind.title, min(same), min(exact), last, largest_tolerance)


def _length(change: Any, tolerance: Tolerance) -> int:
    """Return the number of leading positions of `change` (samples, positions) with enough samples in tolerance."""
    unchanged = np.mean(change <= np.max(tolerance.amount), axis=0) >= tolerance.share
    return int(np.argmin(unchanged)) if not unchanged.all() else len(unchanged)
