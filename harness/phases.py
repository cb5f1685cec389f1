"""A profile read for the paper's phases: where they lie, how many are certain, and which claims hold."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from harness.analysis.claims import CLAIMS, Claim
from harness.analysis.moves import declared_prominence, persistence
from harness.analysis.phase_reading import PhaseReading, read_phases
from harness.analysis.turning_points import BoundaryInterval
from harness.baselines import as_floats, rounded
from harness.profile import Profile

# The recall that the claims are judged on.
CLAIM_RECALL = "recall_5"


def phase_reading(profile: Profile) -> PhaseReading:
    """The segmentation and certified moves of a profile's inter-modal similarity over all text tokens.

    Raises:
        ValueError: fewer than two independent samples, or fewer than five residual points.
    """
    return read_phases(
        as_floats(profile["inter"]),
        as_floats(profile["image"]),
        as_floats(profile["text"]),
        as_floats(profile[CLAIM_RECALL]),
        clusters=profile.clusters,
    )


def claims_of(reading: PhaseReading) -> dict[str, Claim]:
    """Every claim of the paper, by name, judged on one reading."""
    return {name: judge(reading) for name, judge in CLAIMS.items()}


def phases_of(profile: Profile) -> dict[str, Any]:
    """What a file tells of a profile's phases: boundaries with intervals, moves, k(delta), claims; JSON types only."""
    reading = phase_reading(profile)
    mean = reading.summary.mean
    kept = persistence(mean)
    spread = float(mean.max() - mean.min())
    return {
        "level": reading.boundaries.level,
        "turning_points": [_interval(point) for point in reading.boundaries.turning_points],
        "half_heights": [_interval(point) for point in reading.boundaries.half_heights],
        "certified_moves": reading.any_moves.count,
        "certified_chain": [
            [move.first, move.last, "up" if move.direction > 0 else "down"] for move in reading.any_moves.chain
        ],
        "prominence": rounded(declared_prominence(mean)),
        "moves_at": {
            f"{share:.0%} of the range": kept.moves_at(share * spread) for share in (0.01, 0.02, 0.05, 0.1, 0.2)
        },
        "vanishing": [[rounded(step.delta), step.lost, list(step.layers)] for step in kept.vanishing],
        "claims": {name: claim_record(claim) for name, claim in claims_of(reading).items()},
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
            }
            for part in claim.parts
        ],
    }


def number(value: float) -> float | None:
    """A number to six significant digits, or None where it is not finite: JSON has no NaN."""
    return float(rounded(value)) if math.isfinite(value) else None


def _interval(point: BoundaryInterval) -> list[float | None]:
    return [number(point.estimate), number(point.low), number(point.high)]
