"""The full record of a run as JSON: curves, phases, verdicts and provenance; the same run gives the same bytes."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from harness.baselines import mean_curves
from harness.phases import phases_of
from harness.profile import Profile
from harness.session import PhaseSession
from harness.word_order import scores_of

RECORD_SCHEMA = 1


def record_of(session: PhaseSession) -> dict[str, Any]:
    """The record. Wall times stay out of it: they are pytest-benchmark's to store, and no two runs agree on them."""
    return {
        "schema": RECORD_SCHEMA,
        "harness": version("vlm-phase-harness"),
        "seed": session.options.seed,
        "pairs": {str(pair): pair_record(profile) for pair, profile in session.profiles.items()},
        "verdicts": [
            {
                "pair": str(line.pair),
                "kind": line.kind,
                "question": line.question,
                "verdict": line.verdict,
                "numbers": line.numbers,
            }
            for line in sorted(session.verdicts, key=lambda line: (str(line.pair), line.kind, line.question))
        ],
    }


def pair_record(profile: Profile) -> dict[str, Any]:
    """What the record tells of one pair: provenance, phases, mean curves."""
    return {
        "model": profile.model,
        "dataset": profile.dataset,
        "n": profile.n,
        "environment": asdict(profile.environment),
        "weights": profile.weights,
        "revision": profile.revision,
        "left_out": dict(profile.left_out),
        "winoground": {name: asdict(score) for name, score in scores_of(profile).items()},
        "declared": dict(profile.declared),
        "samples": list(profile.sample_ids),
        "phases": phases_of(profile),
        **mean_curves(profile),
    }
