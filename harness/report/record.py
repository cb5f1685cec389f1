"""The full record of a run as JSON: curves, phases, verdicts and provenance; the same run gives the same bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import numpy as np

from harness.analysis.curves import summarise
from harness.analysis.phase_reading import PhaseReading
from harness.analysis.turning_points import turning_points
from harness.baselines.store import Baseline, mean_curves, shown_measures
from harness.judgement.phases import phases_of
from harness.judgement.side_by_side import traces_of
from harness.measurement.word_order import Score, scores_of
from harness.profile.profile import Profile, as_floats
from harness.report.against import ModelComparison
from harness.run.session import PhaseSession
from harness.storage.json_text import rounded

RECORD_SCHEMA = 3
#: The band of a curve, as the figures draw it: the middle 80 % of the samples.
BAND = (0.1, 0.9)
# Directories of an absolute path, of this machine and of no other; what follows them stays.
_DIRECTORIES = re.compile(r"(?<![\w.~:/\\-])(?:[A-Za-z]:[\\/]|/)(?:[^\s/\\:;,'\"()]+[\\/])+(?=[^\s/\\])")


def record_of(session: PhaseSession, compared: Sequence[ModelComparison] = ()) -> dict[str, Any]:
    """The record. Wall times stay out of it: they are pytest-benchmark's to store, and no two runs agree on them."""
    against = {"against": [comparison.record() for comparison in compared]} if compared else {}
    return against | {
        "schema": RECORD_SCHEMA,
        "harness": version("vlm-phase-harness"),
        "seed": session.options.seed,
        "pairs": {
            str(pair): pair_record(profile, session.held_against(pair), session.reading(pair))
            for pair, profile in session.profiles.items()
        },
        "not_measured": {str(pair): without_directories(reason) for pair, reason in session.not_measured().items()},
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


def pair_record(profile: Profile, held: Baseline | None = None, reading: PhaseReading | None = None) -> dict[str, Any]:
    """What the record tells of one pair: provenance, phases, mean curves with their bands, and the baseline's.

    Args:
        profile: what was measured.
        held: what it was held against; None where nothing was.
        reading: its phases, where the caller has read them.
    """
    return {
        "model": profile.model,
        "dataset": profile.dataset,
        "n": profile.n,
        "depth": profile.depth,
        "environment": asdict(profile.environment),
        "weights": profile.weights,
        "revision": profile.revision,
        "configuration": dict(profile.configuration),
        "left_out": {name: without_directories(reason) for name, reason in profile.left_out.items()},
        "winoground": {name: _score(score) for name, score in scores_of(profile).items()},
        "declared": dict(profile.declared),
        "samples": list(profile.sample_ids),
        "phases": phases_of(profile, reading),
        **mean_curves(profile),
        "bands": bands(profile),
        "baseline": None if held is None else baseline_record(profile, held),
    }


def bands(profile: Profile) -> dict[str, dict[str, list[float]]]:
    """Between which values the middle 80 % of the samples lie, `low` and `high` (places,) for every curve."""
    found = {}
    for name in shown_measures(profile):
        array = profile[name]
        if array.ndim == 2:
            low, high = np.quantile(as_floats(array), BAND, axis=0)
            found[name] = {"low": rounded(low), "high": rounded(high)}
    return found


def baseline_record(profile: Profile, held: Baseline) -> dict[str, Any]:
    """What a pair was held against: where it comes from, how its provenance differs, and its mean curves."""
    then = held.profile
    means = {}
    for name in shown_measures(then):
        # A summary holds what is judged, and nothing besides.
        with suppress(KeyError):
            means[name] = rounded(then[name].mean(0))
    return held.source | {
        "n": held.samples,
        "depth": then.depth,
        "environment": asdict(then.environment),
        "weights": then.weights,
        "changes": profile.changes(then),
        "main_changes": profile.main_changes(then),
        "means": means,
        "same_until": {trace.name: asdict(trace) for trace in traces_of(profile, held)},
        "turning_points": list(turning_points(summarise(as_floats(then["inter"]), then.clusters).mean, 4)),
    }


def _score(score: Score) -> dict[str, Any]:
    return {name: rounded(value) if isinstance(value, float) else value for name, value in asdict(score).items()}


def record_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that a record, and the report's numbers, keep to."""
    schema: dict[str, Any] = json.loads((files("harness.report") / "record.schema.json").read_text(encoding="utf-8"))
    return schema


def without_directories(text: str) -> str:
    """The text with the last part of each absolute path only: where things lie is this machine's own matter."""
    return _DIRECTORIES.sub("", text)
