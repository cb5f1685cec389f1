"""The phases of a profile: their boundaries, the confirmed monotone segments and the verdicts on the claims."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from enum import StrEnum
from typing import Any

import numpy as np

from harness.analysis.claims import CLAIMS, Claim
from harness.analysis.curves import FloatArray, summarise
from harness.analysis.flow_claims import FLOW_CLAIMS
from harness.analysis.knockout_reading import KnockoutReading, KnockoutSamples, read_knockout
from harness.analysis.knockout_windows import onward_starts
from harness.analysis.phase_reading import PhaseReading, read_phases
from harness.analysis.recorded_reading import RecordedReading
from harness.analysis.segments import (
    BoundedRises,
    ConfirmedSegments,
    bounded_rises,
    confirm_segments,
    declared_prominence,
    persistence,
)
from harness.analysis.turning_points import BoundaryInterval, turning_points
from harness.data.sample import CONTROLS
from harness.profile.measures import (
    KNOCKOUT_FAMILY,
    KNOCKOUT_PATHS,
    KNOCKOUT_WINDOW,
    OTHER_TOKENS,
    chance_measure,
    knockout_array,
)
from harness.profile.profile import Profile, as_floats
from harness.profile.recorded_profile import RecordedProfile
from harness.storage.json_text import round_numbers

# The recall measure that the claims use.
CLAIM_RECALL = "recall_5"
#: The names of all claims, those of the paper first.
CLAIM_NAMES = (*CLAIMS, *FLOW_CLAIMS)
# Prominences, as shares of the range, at which segments are counted; verdicts use `declared_prominence`.
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2)


def phase_reading(profile: Profile) -> PhaseReading:
    """Return the phase boundaries and confirmed segments of the inter-modal similarity over all text tokens.

    A profile from a record returns the recorded ones.

    Raises:
        ValueError: fewer than two independent samples, or fewer than five residual points.
    """
    if isinstance(profile, RecordedProfile) and profile.reading is not None:
        return profile.reading
    reading = read_phases(
        as_floats(profile["inter"]),
        as_floats(profile["image"]),
        as_floats(profile["text"]),
        None if profile.no_recall else as_floats(profile[CLAIM_RECALL]),
        clusters=profile.clusters,
        controls=profile.controls,
        recall_chance=None if profile.no_recall else profile[chance_measure(CLAIM_RECALL)],
        no_recall=profile.no_recall,
        control_rows={control: profile.control_rows(control) for control in profile.controls},
    )
    return replace(reading, knockout=_knockout(profile, reading.alpha))


def _knockout(profile: Profile, alpha: float) -> KnockoutReading | None:
    """Return the losses under attention knockout of a profile, or None if they were not measured."""
    # A summary has no losses of samples.
    if not profile.arrays.keys() >= {KNOCKOUT_FAMILY, "knockout_onward"}:
        return None
    window = int(profile.declared[KNOCKOUT_WINDOW])
    rows = np.isfinite(profile["knockout_caption_tokens"])

    def values(name: str) -> FloatArray:
        return as_floats(profile[name][rows])

    def by_path(control: str = "") -> dict[str, FloatArray]:
        paths = (OTHER_TOKENS,) if control == OTHER_TOKENS else KNOCKOUT_PATHS
        names = {path: knockout_array(control, path) for path in paths}
        return {path: values(name) for path, name in names.items() if name in profile.arrays}

    samples = KnockoutSamples(
        window=window,
        starts=tuple(start + 1 for start in onward_starts(profile.depth, window)),
        paths=by_path(),
        controls={control: paths for control in (*CONTROLS, OTHER_TOKENS) if (paths := by_path(control))},
        onward=values("knockout_onward"),
        tokens=values("knockout_caption_tokens"),
        clusters=[cluster for cluster, kept in zip(profile.clusters, rows, strict=True) if kept],
    )
    return read_knockout(samples, alpha)


def relative_depth(point: BoundaryInterval, depth: int) -> BoundaryInterval:
    """Return a boundary and its interval divided by the depth: 0 is the embeddings, 1 the input of the final norm.

    Args:
        point: the boundary in layers or residual points.
        depth: the number L of decoder layers.

    Raises:
        ValueError: the depth is below 1.
    """
    if depth < 1:
        raise ValueError(f"a depth relative to {depth} layers is not defined.")
    return BoundaryInterval(point.estimate / depth, point.low / depth, point.high / depth)


def judge_claims(reading: PhaseReading) -> dict[str, Claim]:
    """Judge all claims and return them by name; the causal ones need a knockout. A record has the verdicts."""
    if isinstance(reading, RecordedReading):
        return {name: reading.claims[name] for name in CLAIM_NAMES if name in reading.claims}
    flow_claims = FLOW_CLAIMS if reading.knockout is not None else {}
    return {name: judge(reading) for name, judge in {**CLAIMS, **flow_claims}.items()}


def phases_of(profile: Profile, reading: PhaseReading | None = None) -> dict[str, Any]:
    """Return the phases of a profile as JSON types.

    The record holds boundaries with intervals, monotone segments, their number by prominence, and claims.
    Boundaries are in layers. Under `relative_depth` they are shares of the depth, comparable between models.
    `reading` is the `phase_reading` of the profile, computed if omitted.

    Example:
        >>> import harness
        >>> from pathlib import Path
        >>> from harness.baselines.store import read_baseline
        >>> profile = read_baseline(Path("baselines/scenes-llava/scenes.json")).profile
        >>> phases = harness.phases_of(profile)
        >>> [layer for layer, low, high in phases["turning_points"]]
        [16.0, 27.0, 29.0]
        >>> phases["confirmed_segment_count"], phases["claims"]["inter-modal"]["verdict"]
        (4, 'holds')
    """
    reading = reading or phase_reading(profile)
    mean, boundaries = reading.summary.mean, reading.boundaries
    points = {"turning_points": boundaries.turning_points, "half_heights": boundaries.half_heights}
    ends = {name: [interval_record(point) for point in layers] for name, layers in points.items()}
    relative = {
        name: [interval_record(relative_depth(point, reading.last)) for point in layers]
        for name, layers in points.items()
    }
    return {
        "level": boundaries.level,
        **ends,
        "relative_depth": {"depth": reading.last} | relative,
        **_segments(mean, reading.rises, reading.any_segments),
        "prominence": round_numbers(declared_prominence(mean)),
        "vanishing": [
            [round_numbers(step.prominence), step.removed, list(step.layers)] for step in persistence(mean).vanishing
        ],
        "claims": {name: claim_record(claim) for name, claim in judge_claims(reading).items()},
        "controls": {control: _control(profile, control) for control in profile.controls},
    }


def confirmed_segment_counts(rises: BoundedRises, spread: float) -> dict[str, int]:
    """Return the number of confirmed monotone segments at each declared share of a curve's range `spread`."""
    return {f"{share:.0%} of the range": confirm_segments(rises, share * spread).count for share in SHARES}


def _control(profile: Profile, control: str) -> dict[str, Any]:
    """Return the turning points and segments of the inter-modal curve of a control."""
    curve = as_floats(profile.controls[control]["inter"])
    summary = summarise(curve, [profile.clusters[row] for row in profile.control_rows(control)])
    mean, rises = summary.mean, bounded_rises(summary)
    segments = confirm_segments(rises, declared_prominence(mean))
    return {"turning_points": list(turning_points(mean, 4)), **_segments(mean, rises, segments)}


def _segments(mean: FloatArray, rises: BoundedRises, segments: ConfirmedSegments) -> dict[str, Any]:
    return {
        "confirmed_segment_count": segments.count,
        "confirmed_segment_counts": confirmed_segment_counts(rises, float(mean.max() - mean.min())),
        "confirmed_segments": [
            [segment.first, segment.last, "up" if segment.direction > 0 else "down"] for segment in segments.chain
        ],
        "segment_counts": segment_counts(mean),
    }


def segment_counts(mean: FloatArray) -> dict[str, int]:
    """Return the number of monotone segments of a mean curve at each declared share of its range."""
    persistent, spread = persistence(mean), float(mean.max() - mean.min())
    return {f"{share:.0%} of the range": persistent.segment_count(share * spread) for share in SHARES}


def claim_record(claim: Claim) -> dict[str, Any]:
    """Return a claim as JSON types."""
    parts, curves = ([_plain(asdict(item)) for item in items] for items in (claim.parts, claim.curve_differences))
    return {
        "verdict": str(claim.verdict),
        "decisive": claim.decisive.name,
        "parts": parts,
        "curve_differences": {curve.pop("control"): curve for curve in curves},
    }


def _plain(value: Any) -> Any:
    match value:
        case float():
            return json_number(value)
        case StrEnum():
            return str(value)
        case dict():
            return {name: _plain(item) for name, item in value.items()}
        case tuple():
            return list(map(_plain, value))
    return value


def json_number(value: float) -> float | None:
    """Return a number to six significant digits, or None if it is not finite, because JSON has no NaN."""
    return float(round_numbers(value)) if math.isfinite(value) else None


def interval_record(point: BoundaryInterval) -> list[float | None]:
    """Return a boundary with the ends of its interval as JSON types."""
    return [json_number(point.estimate), json_number(point.low), json_number(point.high)]
