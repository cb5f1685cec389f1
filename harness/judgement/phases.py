"""A profile read for the paper's phases: where they lie, how many are certain, and which claims hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from harness.analysis.beyond import Beyond
from harness.analysis.claims import CLAIMS, Claim
from harness.analysis.curves import FloatArray, summarise
from harness.analysis.moves import (
    BoundedRises,
    Moves,
    bounded_rises,
    declared_prominence,
    moves_of_rises,
    persistence,
)
from harness.analysis.phase_reading import PhaseReading, read_phases
from harness.analysis.turning_points import BoundaryInterval, turning_points
from harness.profile.measures import chance_of
from harness.profile.profile import Profile, as_floats
from harness.storage.json_text import rounded

# The recall that the claims are judged on.
CLAIM_RECALL = "recall_5"
# Prominences at which k(delta) is told; verdicts use one of them.
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2)


def phase_reading(profile: Profile) -> PhaseReading:
    """The segmentation and certified moves of a profile's inter-modal similarity over all text tokens.

    Raises:
        ValueError: fewer than two independent samples, or fewer than five residual points.
    """
    return read_phases(
        as_floats(profile["inter"]),
        as_floats(profile["image"]),
        as_floats(profile["text"]),
        None if profile.no_recall else as_floats(profile[CLAIM_RECALL]),
        clusters=profile.clusters,
        controls=profile.controls,
        recall_chance=None if profile.no_recall else profile[chance_of(CLAIM_RECALL)],
        no_recall=profile.no_recall,
    )


def relative_depth(point: BoundaryInterval, depth: int) -> BoundaryInterval:
    """A boundary and the ends of its interval over the depth: 0 is the embeddings, 1 the input of the final norm.

    Args:
        point: in layers, or residual points.
        depth: the number L of decoder layers.

    Raises:
        ValueError: a model without layers.
    """
    if depth < 1:
        raise ValueError(f"a depth relative to {depth} layers is not defined.")
    return BoundaryInterval(point.estimate / depth, point.low / depth, point.high / depth)


def claims_of(reading: PhaseReading) -> dict[str, Claim]:
    """Every claim of the paper, by name, judged on one reading."""
    return {name: judge(reading) for name, judge in CLAIMS.items()}


def phases_of(profile: Profile, reading: PhaseReading | None = None) -> dict[str, Any]:
    """What a file tells of a profile's phases: boundaries with intervals, moves, k(delta), claims; JSON types only.

    Boundaries stand there in layers, and under `relative_depth` as shares of the depth, by which models of different
    depth compare. `reading` is `phase_reading` of the profile where the caller has it.
    """
    reading = reading or phase_reading(profile)
    mean = reading.summary.mean
    return {
        "level": reading.boundaries.level,
        "turning_points": [_interval(point) for point in reading.boundaries.turning_points],
        "half_heights": [_interval(point) for point in reading.boundaries.half_heights],
        "relative_depth": {
            "depth": reading.last,
            "turning_points": _relative(reading.boundaries.turning_points, reading.last),
            "half_heights": _relative(reading.boundaries.half_heights, reading.last),
        },
        **_moves(mean, reading.rises, reading.any_moves),
        "prominence": rounded(declared_prominence(mean)),
        "vanishing": [[rounded(step.delta), step.lost, list(step.layers)] for step in persistence(mean).vanishing],
        "claims": {name: claim_record(claim) for name, claim in claims_of(reading).items()},
        "controls": {control: _control(profile, control) for control in profile.controls},
    }


def certified_at(rises: BoundedRises, spread: float) -> dict[str, int]:
    """How many alternating moves are certain at each declared share of a curve's range `spread`."""
    return {f"{share:.0%} of the range": moves_of_rises(rises, share * spread).count for share in SHARES}


def _control(profile: Profile, control: str) -> dict[str, Any]:
    """The phases that the inter-modal curve has without its picture."""
    curve = as_floats(profile.controls[control]["inter"])
    summary = summarise(curve, profile.clusters)
    mean, rises = summary.mean, bounded_rises(summary)
    moves = moves_of_rises(rises, declared_prominence(mean))
    return {"turning_points": list(turning_points(mean, 4)), **_moves(mean, rises, moves)}


def _moves(mean: FloatArray, rises: BoundedRises, moves: Moves) -> dict[str, Any]:
    kept, spread = persistence(mean), float(mean.max() - mean.min())
    return {
        "certified_moves": moves.count,
        "certified_moves_at": certified_at(rises, spread),
        "certified_chain": [[move.first, move.last, "up" if move.direction > 0 else "down"] for move in moves.chain],
        "moves_at": {f"{share:.0%} of the range": kept.moves_at(share * spread) for share in SHARES},
    }


def claim_record(claim: Claim) -> dict[str, Any]:
    """A claim as JSON types."""
    return {
        "verdict": str(claim.verdict),
        "decisive": claim.decisive,
        "parts": [
            asdict(part)
            | {
                "verdict": str(part.verdict),
                "effect": number(part.effect),
                "interval": [number(end) for end in part.interval],
                "margin": number(part.margin),
                "beyond": [_beyond(beyond) for beyond in part.beyond],
            }
            for part in claim.parts
        ],
        "curves_beyond": {
            curve.control: {
                "above": list(curve.above),
                "below": list(curve.below),
                "highest": number(curve.highest),
                "lowest": number(curve.lowest),
                "margin": number(curve.margin),
                "confidence": curve.confidence,
            }
            for curve in claim.curves_beyond
        },
    }


def _beyond(beyond: Beyond) -> dict[str, Any]:
    return {
        "control": beyond.control,
        "what": beyond.what,
        "effect": number(beyond.effect),
        "interval": [number(end) for end in beyond.interval],
        "certain": beyond.certain,
    }


def number(value: float) -> float | None:
    """A number to six significant digits, or None where it is not finite: JSON has no NaN."""
    return float(rounded(value)) if math.isfinite(value) else None


def _relative(points: Sequence[BoundaryInterval], depth: int) -> list[list[float | None]]:
    return [_interval(relative_depth(point, depth)) for point in points]


def _interval(point: BoundaryInterval) -> list[float | None]:
    return [number(point.estimate), number(point.low), number(point.high)]
