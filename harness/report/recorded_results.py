"""The report of a run, made again from its record: the inverse of `record`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from harness.analysis.timing import TimingRatio
from harness.data.sample import CONTROLS
from harness.errors import PhaseError
from harness.models.registry import ModelEntry
from harness.profile.pair import Pair
from harness.report.record import RECORD_SCHEMA
from harness.report.recorded_comparison import recorded_comparison
from harness.report.recorded_pairs import recorded_baseline, recorded_profile
from harness.report.recorded_verdicts import number, recorded_result
from harness.report.rephrased import recorded_rephrasing
from harness.report.write import write_report
from harness.run.options import Options
from harness.run.session_results import SessionResults
from harness.storage.regular_file import read_regular

#: Records have a few megabytes, most of it the samples that a report shows in full.
_MOST_BYTES = 2**30
#: Dictionaries whose order the page shows, and JSON does not keep.
_ORDERS: Mapping[str, tuple[str, ...]] = {
    "controls": tuple(CONTROLS),
    "control_samples": tuple(CONTROLS),
    "control_bands": tuple(CONTROLS),
    "curve_differences": tuple(CONTROLS),
    "winoground": ("text", "image", "group"),
}


class RecordError(PhaseError):
    """A file is no record, has another schema, or is damaged."""


def report_from_record(record: Path, directory: Path) -> Path:
    """Write the report of a run to a directory from the run's record, and return the path of the page.

    A record that a report contains (`phase.json`) also has the samples that the report shows in full, and the times.

    Args:
        record: the file of a record, or the directory of a report.
        directory: where to write, as with `write_report`; created if it does not exist.

    Raises:
        RecordError: the file is no record, has another schema, or is damaged.
        OSError: the directory is not writable.
    """
    content = read_record(record)
    try:
        findings = recorded_results(content)
        comparisons = [recorded_comparison(comparison) for comparison in content.get("against", ())]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, StopIteration, OSError) as error:
        raise RecordError(
            f"the record {record} is damaged ({error!r}): make it again with the run that wrote it"
        ) from None
    return write_report(findings, comparisons, directory, content)


def read_record(path: Path) -> dict[str, Any]:
    """Return the content of a record, or of the record in the directory of a report.

    Raises:
        RecordError: the file is unreadable, is no record, or has another schema.
    """
    file = path / "phase.json" if path.is_dir() else path
    try:
        content = json.loads(read_regular(file, _MOST_BYTES))
    except OSError as error:
        raise RecordError(f"the record {file} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{file} is no record of a run, as it is not JSON ({error})") from None
    if not isinstance(content, dict) or not {"schema", "harness", "pairs", "verdicts"} <= content.keys():
        raise RecordError(f"{file} is no record of a run: give the JSON file of a run, or phase.json of its report")
    if content["schema"] != RECORD_SCHEMA:
        raise RecordError(
            f"the record {file} has schema {content['schema']}, written by vlm-phase-harness {content['harness']}; "
            f"this version reads schema {RECORD_SCHEMA}: use the version that wrote it, or measure again"
        )
    ordered: dict[str, Any] = _ordered(content)
    return ordered


def recorded_results(content: Mapping[str, Any]) -> SessionResults:
    """Return the results of the run that wrote a record.

    Raises:
        KeyError, TypeError, ValueError: the record is damaged.
    """
    entries: dict[str, Any] = {name: content["pairs"][name] for name in content["order"]}
    pairs = {name: Pair(entry["model"], entry["dataset"]) for name, entry in entries.items()}
    against = [comparison["against"] for comparison in content.get("against", ())]
    results = SessionResults(
        _options(int(content["seed"]), against[0] if against else None, strict_claims=content["strict_claims"]),
        collected=tuple(pairs.values()),
        reported={pairs[name] for name, entry in entries.items() if entry.get("reported")},
        known_differences={name: entry.get("known", {}) for name, entry in entries.items()},
    )
    for name, entry in entries.items():
        profile = results.profiles[pairs[name]] = recorded_profile(entry)
        if entry["baseline"] is not None:
            results.baselines[pairs[name]] = recorded_baseline(entry["baseline"], profile)
        rephrased = entry.get("rephrased", {})
        if "left_out" in rephrased:
            results.not_rephrased[pairs[name]] = str(rephrased["left_out"])
        elif rephrased:
            results.rephrasings[pairs[name]] = recorded_rephrasing(pairs[name], rephrased)
    results.verdicts += [recorded_result(pairs[entry["pair"]], entry) for entry in content["verdicts"]]
    for name, timing in content.get("timing", {}).items():
        ends = number(timing["low"]), number(timing["high"])
        results.ratios[pairs[name]] = TimingRatio(number(timing["ratio"]), ends, math.nan, 0)
    return results


def _options(seed: int, against: str | None, *, strict_claims: bool) -> Options:
    """Return options with the values that reports depend on."""
    values: dict[str, Any] = dict.fromkeys((field.name for field in fields(Options)), None)
    values |= {"models": (), "datasets": (), "data": {}, "draw": (), "seed": seed, "strict_claims": strict_claims}
    if against is not None:
        values["against"] = ModelEntry(against, "a model of the record", "", ())
    return Options(**values)


def _ordered(value: Any) -> Any:
    """Return JSON with the orders that the page shows."""
    if isinstance(value, list):
        return list(map(_ordered, value))
    if not isinstance(value, dict):
        return value
    return {name: _sorted(name, _ordered(inner)) for name, inner in value.items()}


def _sorted(name: str, value: Any) -> Any:
    order = _ORDERS.get(name)
    if order is None or not isinstance(value, dict):
        return value
    return {key: value[key] for key in (*order, *value) if key in value}
