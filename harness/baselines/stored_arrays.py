"""The arrays beside a baseline's JSON, as bytes: every sample's values, or only mean and covariance of each measure."""

from __future__ import annotations

import io
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import numpy as np

from harness.analysis.curves import CurveSummary, rows_of_summary, summarise
from harness.profile.environment import Environment
from harness.profile.measures import MEASURES, RECALL, Measure
from harness.profile.profile import Array, Profile


class Form(StrEnum):
    """What a baseline holds of its samples."""

    SAMPLES = "samples"
    SUMMARY = "summary"


def pack_samples(profile: Profile) -> bytes:
    """The npz of a profile: what was measured of every sample, its controls, ids, clusters and input hashes."""
    names = {name: np.array(getattr(profile, name)) for name in _NAMES}
    held = {
        f"{control}{_HELD}{name}": array
        for control, curves in profile.controls.items()
        for name, array in curves.items()
    }
    return _npz({**names, **profile.arrays, **held})


def pack_summary(profile: Profile) -> bytes:
    """The npz of a profile's summary, float64: of every judged measure `<measure>.mean` (P,) and `.covariance` (P, P).

    Both are those of `rows` independent rows, each the mean over one cluster; nothing is there of one sample.

    Raises:
        ValueError: all samples are of one cluster.
    """
    arrays: dict[str, Array] = {}
    for name in profile.measured(MEASURES):
        summary = summarise(profile[name], profile.clusters, name)
        arrays |= {f"{name}.mean": summary.mean, f"{name}.covariance": summary.covariance, "rows": np.array(summary.n)}
    return _npz(arrays)


def unpack_profile(content: Mapping[str, Any], arrays: bytes) -> Profile:
    """Return the profile of a baseline's JSON and npz.

    That of a summary has rows that no sample has, with the summary's means and covariances and ids of their own:
    nothing can be paired with them, and all that takes independent rows takes them.

    Raises:
        KeyError, TypeError, ValueError, zipfile.BadZipFile: one of the two is damaged.
    """
    with np.load(io.BytesIO(arrays), allow_pickle=False) as stored:
        held = {name: stored[name] for name in stored.files}
    controls: dict[str, dict[str, Array]] = {}
    if stored_form(content) is Form.SUMMARY:
        n = int(held["rows"])
        # A character that no name of a sample has.
        ids = tuple(f"\0summary-{row}" for row in range(n))
        fields = (ids, ids, ("",) * n, ("",) * n)
        held = {
            name: rows_of_summary(CurveSummary(held[f"{name}.mean"], held[f"{name}.covariance"], n))
            for name, measure in MEASURES.items()
            if f"{name}.mean" in held or not _may_lack(measure, content)
        }
    else:
        ids, clusters, tokens, pixels = (tuple(str(item) for item in held.pop(name)) for name in _NAMES)
        fields = (ids, clusters, tokens, pixels)
        for measure in MEASURES.values():
            for name in measure.arrays:
                if name not in held and not _may_lack(measure, content):
                    raise KeyError(name)
        for name in [name for name in held if _HELD in name]:
            control, curve = name.split(_HELD)
            controls.setdefault(control, {})[curve] = held.pop(name)
    return Profile(
        content["model"],
        content["dataset"],
        *fields,
        arrays=held,
        declared=content["declared"],
        environment=Environment(**content["environment"]),
        weights=content["weights"],
        controls=controls,
        revision=content.get("revision", ""),
        # Baselines of earlier versions hold none.
        configuration=content.get("configuration", {}),
    )


def _may_lack(measure: Measure, content: Mapping[str, Any]) -> bool:
    """True if a measure is recall and was left out."""
    return measure.kind is RECALL and "recall_left_out" in content["declared"]


def stored_form(content: Mapping[str, Any]) -> Form:
    """Return the form of a baseline's arrays by its JSON; files that say nothing hold samples.

    Raises:
        ValueError: no known form.
    """
    return Form(content.get("form", Form.SAMPLES))


# What stands between a control's name and that of its curve, in the names of the arrays.
_HELD = "."
_NAMES = ("sample_ids", "clusters", "token_hashes", "pixel_hashes")


def _npz(arrays: Mapping[str, Array]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()
