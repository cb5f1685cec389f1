"""The record of a run as JSON: curves, phases, verdicts and provenance. Equal runs give equal bytes."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image

from harness.analysis.control_difference import DifferenceBand
from harness.analysis.curves import summarise
from harness.analysis.phase_reading import PhaseReading
from harness.analysis.turning_points import turning_points
from harness.baselines.history import HISTORY
from harness.baselines.mean_curves import mean_curves, shown_measures
from harness.baselines.store import Baseline
from harness.errors import LONGEST_TOKEN, shorten, shorten_texts
from harness.judgement.landmarks import landmark_record
from harness.judgement.phases import json_number, phase_reading, phases_of
from harness.judgement.side_by_side import reading_traces
from harness.measurement.word_order import Score, word_order_scores
from harness.profile.profile import Drawing, Profile, as_floats
from harness.report.against import ModelComparison
from harness.report.difference_panels import control_bands, model_difference
from harness.report.image_flow import knockout_record
from harness.report.outcomes import PairOutcome, pair_outcomes
from harness.report.rephrased import rephrasing_record
from harness.report.verdict_numbers import verdict_numbers
from harness.run.session_results import SessionResults
from harness.storage.json_text import round_numbers

RECORD_SCHEMA = 6
#: Quantiles of the band around a curve: the middle 80 % of the samples.
BAND = (0.1, 0.9)
# The directories of an absolute path, without its last part.
_DIRECTORIES = re.compile(r"(?<![\w.~:/\\-])(?:[A-Za-z]:[\\/]|/)(?:[^\s/\\:;,'\"()]+[\\/])+(?=[^\s/\\])")


def run_record(findings: SessionResults, compared: Sequence[ModelComparison] = ()) -> dict[str, Any]:
    """Return the record. Wall times are excluded because they differ from run to run; pytest-benchmark stores them."""
    against = {"against": [comparison.record() for comparison in compared]} if compared else {}
    return against | {
        "schema": RECORD_SCHEMA,
        "harness": version("vlm-phase-harness"),
        "seed": findings.options.seed,
        "strict_claims": findings.options.strict_claims,
        "order": list(map(str, findings.profiles)),
        "pairs": {
            str(outcome.pair): pair_record(outcome.profile, outcome.baseline, outcome.reading)
            | {
                "known": {name: outcome.known[name] for name in outcome.claims if name in outcome.known},
                "reported": outcome.pair in findings.reported,
            }
            | _rephrased(outcome)
            for outcome in pair_outcomes(findings)
        },
        "not_measured": {
            str(pair): without_directories(reason) for pair, reason in findings.unmeasured_reasons().items()
        },
        "verdicts": [
            {
                "pair": str(result.pair),
                "kind": result.kind,
                "question": result.question,
                "verdict": result.verdict,
                "changed": result.changed,
                "numbers": verdict_numbers(result),
            }
            for result in sorted(findings.verdicts, key=lambda result: (str(result.pair), result.kind, result.question))
        ],
    }


def report_record(findings: SessionResults, compared: Sequence[ModelComparison] = ()) -> dict[str, Any]:
    """Return the record with all that the report shows: `timing`, and the samples in full as `drawn` of each pair."""
    record = run_record(findings, compared)
    for pair, profile in findings.profiles.items():
        record["pairs"][str(pair)]["drawn"] = list(map(_sample_record, profile.drawings))
    return record | {
        "timing": {
            str(pair): dict(
                zip(("ratio", "low", "high"), map(json_number, (timing.ratio, *timing.interval)), strict=True)
            )
            for pair, timing in findings.ratios.items()
        }
    }


def pair_record(
    profile: Profile, baseline: Baseline | None = None, reading: PhaseReading | None = None
) -> dict[str, Any]:
    """Return the record of one pair: provenance, phases, mean curves with bands, and the baseline.

    Args:
        profile: the measured profile.
        baseline: its baseline, or None.
        reading: its phases; None computes them.
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
        "winoground": {name: _score(score) for name, score in word_order_scores(profile).items()},
        "declared": dict(profile.declared),
        "samples": list(profile.sample_ids),
        "phases": phases_of(profile, reading := reading or phase_reading(profile)),
        "reading": _reading(reading),
        "landmarks": landmark_record(profile),
        **mean_curves(profile),
        "bands": bands(profile),
        **({} if reading.knockout is None else {"knockout": knockout_record(reading.knockout)}),
        "baseline": None if baseline is None else baseline_record(profile, baseline),
    }


def _rephrased(outcome: PairOutcome) -> dict[str, Any]:
    """Return the entry of the second instruction, or why it was left out; empty without --phase-rephrase."""
    if outcome.not_rephrased:
        return {"rephrased": {"left_out": without_directories(outcome.not_rephrased)}}
    return {} if outcome.rephrasing is None else {"rephrased": rephrasing_record(outcome.rephrasing)}


def _band(band: DifferenceBand) -> dict[str, Any]:
    return {
        "mean": round_numbers(band.mean),
        "half_width": round_numbers(band.half_width),
        "confidence": round_numbers(band.confidence),
        "n": band.n,
    }


def _reading(reading: PhaseReading) -> dict[str, Any]:
    return {
        "mean": round_numbers(reading.summary.mean),
        "n": reading.summary.n,
        "at_most": reading.any_segments.at_most,
        "confirmed": list(reading.confirmed),
        "control_bands": {control: _band(band) for control, band in control_bands(reading).items()},
    }


def bands(profile: Profile) -> dict[str, dict[str, list[float]]]:
    """Return `low` and `high` of the middle 80 % of the samples for every curve, one value per position."""
    quantiles = {}
    for name in shown_measures(profile):
        array = profile[name]
        if array.ndim == 2:
            low, high = np.quantile(as_floats(array), BAND, axis=0)
            quantiles[name] = {"low": round_numbers(low), "high": round_numbers(high)}
    return quantiles


def baseline_record(profile: Profile, baseline: Baseline) -> dict[str, Any]:
    """Return the record of a pair's baseline: its source, the differences in provenance, and its mean curves."""
    stored = baseline.profile
    difference = model_difference(profile, baseline) if baseline.by_id else None
    means = {}
    for name in shown_measures(stored):
        # A summary lacks measures that are not judged.
        with suppress(KeyError):
            means[name] = round_numbers(stored[name].mean(0))
    history = {HISTORY: [entry.record() for entry in baseline.history]} if baseline.history else {}
    return (
        baseline.record_source
        | history
        | {
            "n": baseline.samples,
            "depth": stored.depth,
            "environment": asdict(stored.environment),
            "weights": stored.weights,
            "configuration": dict(stored.configuration),
            "changes": profile.changes(stored),
            "main_changes": profile.main_changes(stored),
            "means": means,
            "difference": None if difference is None else _band(difference),
            "inter_margin": json_number(baseline.margins["inter"]),
            "same_until": {trace.name: asdict(trace) for trace in reading_traces(profile, baseline)},
            "turning_points": list(turning_points(summarise(as_floats(stored["inter"]), stored.clusters).mean, 4)),
        }
    )


def _score(score: Score) -> dict[str, Any]:
    return {name: round_numbers(value) if isinstance(value, float) else value for name, value in asdict(score).items()}


def record_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the record and of the report's numbers."""
    schema: dict[str, Any] = json.loads((files("harness.report") / "record.schema.json").read_text(encoding="utf-8"))
    return schema


def without_directories(text: str) -> str:
    """Shorten each absolute path to its last part, so that records do not depend on the machine."""
    return _DIRECTORIES.sub("", text)


def _sample_record(drawing: Drawing) -> dict[str, Any]:
    return {
        "sample_id": drawing.sample_id,
        "instruction": shorten(drawing.instruction),
        "captions": shorten_texts(drawing.captions),
        "tokens": _tokens(drawing.tokens),
        "groups": {name: [bool(member) for member in members] for name, members in drawing.groups.items()},
        "norm_rows": round_numbers(drawing.norm_rows),
        "image_tokens": [_tokens(point) for point in drawing.image_tokens],
        "last_token": [_tokens(point) for point in drawing.last_token],
        "picture": _png(drawing),
        "grid": None if drawing.grid is None else list(drawing.grid),
        "no_grid": drawing.no_grid_reason,
    }


def _tokens(texts: Sequence[str]) -> list[str]:
    return [shorten(text, LONGEST_TOKEN) for text in texts]


def _png(drawing: Drawing) -> str:
    buffer = io.BytesIO()
    Image.fromarray(drawing.image).save(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
