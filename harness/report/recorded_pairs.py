"""Profile, phases, baseline and shown samples of a pair from its entry in a record."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from harness.analysis.control_difference import DifferenceBand
from harness.analysis.recorded_reading import recorded_reading
from harness.analysis.segments import ConfirmedSegments, Segment
from harness.analysis.turning_points import Boundaries, BoundaryInterval
from harness.baselines.history import read_history
from harness.judgement.landmarks import LANDMARKS
from harness.judgement.side_by_side import RecordedBaseline, RecordedReference, Trace
from harness.profile.environment import Environment
from harness.profile.measures import KINDS
from harness.profile.profile import Array, Drawing, Profile
from harness.profile.recorded_profile import RecordedProfile, equal_rows, rows_with_band
from harness.report.image_flow import recorded_knockout
from harness.report.recorded_verdicts import number, recorded_claim

_GROUPS = ("image", "instruction", "other")
_BOUNDARIES = ("turning_points", "half_heights")


def recorded_profile(entry: Mapping[str, Any]) -> RecordedProfile:
    """Return the profile of a pair with its phases.

    Args:
        entry: the pair's entry in `pairs` of a record.

    Raises:
        KeyError, TypeError, ValueError, OSError: the entry is damaged.
    """
    phases, reading = entry["phases"], entry["reading"]
    mean, n = np.array(reading["mean"], dtype=np.float64), int(reading["n"])
    chain = tuple(
        Segment(int(first), int(last), 1 if direction == "up" else -1, *[float(mean[last] - mean[first])] * 3)
        for first, last, direction in phases["confirmed_segments"]
    )
    segments = ConfirmedSegments(
        int(phases["confirmed_segment_count"]),
        int(reading["at_most"]),
        chain[0].direction if chain else 0,
        chain,
        float(phases["prominence"]),
        n,
    )
    ends = [tuple(BoundaryInterval(*map(number, point)) for point in phases[kind]) for kind in _BOUNDARIES]
    one, two, three, four = map(bool, reading["confirmed"])
    means, bands = entry["means"], entry["bands"]
    return RecordedProfile(
        model=str(entry["model"]),
        dataset=str(entry["dataset"]),
        sample_ids=tuple(map(str, entry["samples"])),
        clusters=tuple(map(str, entry["samples"])),
        token_hashes=(),
        pixel_hashes=(),
        arrays={name: _rows(values, bands.get(name)) for name, values in means.items()},
        declared=entry["declared"],
        environment=Environment(**entry["environment"]),
        weights=str(entry["weights"]),
        drawings=tuple(map(_drawing, entry.get("drawn", ()))),
        controls={
            control: {name: equal_rows(np.array(values, dtype=np.float64)) for name, values in curves.items()}
            for control, curves in entry["controls"].items()
        },
        control_samples={
            control: tuple(map(str, entry["samples"][:count])) for control, count in entry["control_samples"].items()
        },
        revision=str(entry["revision"]),
        left_out=entry["left_out"],
        configuration=entry["configuration"],
        reading=recorded_reading(
            mean,
            Boundaries(1, ends[0], ends[1], float(phases["level"]), n),
            segments,
            (one, two, three, four),
            {name: recorded_claim(name, claim) for name, claim in phases["claims"].items()},
            {control: _difference(band) for control, band in reading["control_bands"].items()},
            recorded_knockout(entry["knockout"]) if "knockout" in entry else None,
        ),
        landmarks={
            name: BoundaryInterval(*map(number, entry["landmarks"][name]["layer"]))
            for name in LANDMARKS
            if name in entry["landmarks"]
        },
    )


def recorded_baseline(entry: Mapping[str, Any], measured: Profile) -> RecordedBaseline:
    """Return the baseline of a pair; its profile has the recorded means and turning points.

    Args:
        entry: `baseline` in the pair's entry.
        measured: the profile of the pair.

    Raises:
        KeyError, TypeError, ValueError: the entry is damaged.
    """
    means, n = {name: np.array(values, dtype=np.float64) for name, values in entry["means"].items()}, int(entry["n"])
    turns = tuple(BoundaryInterval(*[float(layer)] * 3) for layer in entry["turning_points"])
    source = {name: str(entry[name]) for name in ("file", "model") if name in entry}
    no_segments = ConfirmedSegments(0, 0, 0, (), 0.0, n)
    profile = RecordedProfile(
        model=source.get("model", measured.model),
        dataset=measured.dataset,
        sample_ids=tuple(f"sample {row}" for row in range(n)),
        clusters=(),
        token_hashes=(),
        pixel_hashes=(),
        arrays={name: equal_rows(mean) for name, mean in means.items()},
        # A baseline is only compared if it declares the same choices.
        declared={name: value for name, value in measured.declared.items() if name != "recall_left_out"},
        environment=Environment(**entry["environment"]),
        weights=str(entry["weights"]),
        configuration=entry["configuration"],
        reading=recorded_reading(means["inter"], Boundaries(1, turns, (), 0.0, n), no_segments),
    )
    return (RecordedReference if "model" in source else RecordedBaseline)(
        path=Path(source.get("file", "")),
        profile=profile,
        margins={"inter": number(entry["inter_margin"])},
        timing={},
        source=source,
        traces=recorded_traces(entry["same_until"]),
        difference=None if entry["difference"] is None else _difference(entry["difference"]),
        history=read_history(entry),
    )


def recorded_traces(entries: Mapping[str, Any]) -> tuple[Trace, ...]:
    """Return the extents of equal readings, in the order in which they are computed."""
    return tuple(Trace(**entries[kind.title]) for kind in KINDS if kind.title in entries)


def _difference(entry: Mapping[str, Any]) -> DifferenceBand:
    mean, half_width = (np.array(entry[name], dtype=np.float64) for name in ("mean", "half_width"))
    return DifferenceBand(mean, half_width, float(entry["confidence"]), int(entry["n"]))


def _rows(mean: Any, band: Mapping[str, Any] | None) -> Array:
    if band is None:
        return equal_rows(np.array(mean, dtype=np.float64))
    return rows_with_band(*(np.array(curve, dtype=np.float64) for curve in (mean, band["low"], band["high"])))


def _drawing(entry: Mapping[str, Any]) -> Drawing:
    with Image.open(io.BytesIO(base64.b64decode(entry["picture"], validate=True)), formats=("PNG",)) as picture:
        image = np.asarray(picture.convert("RGB"))
    rows, columns = entry["grid"] or (0, 0)
    return Drawing(
        sample_id=str(entry["sample_id"]),
        instruction=str(entry["instruction"]),
        captions=tuple(map(str, entry["captions"])),
        norm_rows=np.array(entry["norm_rows"], dtype=np.float64),
        groups={name: np.array(entry["groups"][name], dtype=np.bool_) for name in _GROUPS if name in entry["groups"]},
        image_tokens=tuple(tuple(map(str, point)) for point in entry["image_tokens"]),
        last_token=tuple(tuple(map(str, point)) for point in entry["last_token"]),
        tokens=tuple(map(str, entry["tokens"])),
        image=image,
        grid=None if entry["grid"] is None else (int(rows), int(columns)),
        no_grid_reason=str(entry["no_grid"]),
    )
