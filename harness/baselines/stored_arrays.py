"""The arrays of a baseline as bytes: the values of every sample, or mean and covariance of each measure."""

from __future__ import annotations

import io
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import numpy as np

from harness.analysis.curves import CurveSummary, rows_from_summary, summarise
from harness.profile.environment import Environment
from harness.profile.measures import MEASURES, PHASE_CURVES, Measure
from harness.profile.profile import Array, Profile


class Form(StrEnum):
    """The form in which a baseline stores its samples."""

    SAMPLES = "samples"
    SUMMARY = "summary"


def pack_samples(profile: Profile) -> bytes:
    """Return the npz of a profile: the arrays of all samples with controls, ids, clusters and input hashes."""
    names = {name: np.array(getattr(profile, name)) for name in _NAMES}
    controls = {
        f"{control}{_SEPARATOR}{name}": array
        for control, curves in profile.controls.items()
        for name, array in curves.items()
    }
    samples = {
        f"{control}{_SEPARATOR}{_SAMPLES}": np.array(profile.samples_of(control))
        for control in profile.controls
        if profile.samples_of(control) != profile.sample_ids
    }
    return _npz({**names, **profile.arrays, **controls, **samples})


def pack_summary(profile: Profile) -> bytes:
    """Return the npz of a profile's summary, float64: `<measure>.mean` (P,) and `.covariance` (P, P) per measure.

    Both describe `rows` independent rows, each the mean over one cluster. No value of any sample is included.

    Raises:
        ValueError: all samples belong to one cluster.
    """
    arrays: dict[str, Array] = {}
    for name in profile.measured(MEASURES):
        summary = summarise(profile[name], profile.clusters, name)
        arrays |= {f"{name}.mean": summary.mean, f"{name}.covariance": summary.covariance, "rows": np.array(summary.n)}
    return _npz(arrays)


def unpack_profile(content: Mapping[str, Any], arrays: bytes) -> Profile:
    """Return the profile of a baseline's JSON and npz.

    The profile of a summary has artificial rows with the summary's mean and covariance. Their ids match no sample, so
    they are never paired, but functions of independent rows accept them.

    Raises:
        KeyError, TypeError, ValueError, zipfile.BadZipFile: one of the two is damaged.
    """
    with np.load(io.BytesIO(arrays), allow_pickle=False) as stored:
        stored_arrays = {name: stored[name] for name in stored.files}
    controls: dict[str, dict[str, Array]] = {}
    control_samples: dict[str, tuple[str, ...]] = {}
    if stored_form(content) is Form.SUMMARY:
        n = int(stored_arrays["rows"])
        # The ids contain a character that no sample's id has.
        ids = tuple(f"\0summary-{row}" for row in range(n))
        fields = (ids, ids, ("",) * n, ("",) * n)
        stored_arrays = {
            name: rows_from_summary(CurveSummary(stored_arrays[f"{name}.mean"], stored_arrays[f"{name}.covariance"], n))
            for name, measure in MEASURES.items()
            if f"{name}.mean" in stored_arrays or _has(measure, content)
        }
    else:
        ids, clusters, tokens, pixels = (tuple(str(item) for item in stored_arrays.pop(name)) for name in _NAMES)
        fields = (ids, clusters, tokens, pixels)
        for measure in MEASURES.values():
            for name in measure.arrays:
                if name not in stored_arrays and _has(measure, content):
                    raise KeyError(name)
        for name in [name for name in stored_arrays if _SEPARATOR in name]:
            control, curve = name.split(_SEPARATOR)
            if curve == _SAMPLES:
                control_samples[control] = tuple(str(item) for item in stored_arrays.pop(name))
                continue
            controls.setdefault(control, {})[curve] = stored_arrays.pop(name)
    return Profile(
        content["model"],
        content["dataset"],
        *fields,
        arrays=stored_arrays,
        declared=content["declared"],
        environment=Environment(**content["environment"]),
        weights=content["weights"],
        controls=controls,
        control_samples=control_samples,
        revision=content.get("revision", ""),
        # Baselines of earlier versions have no configuration.
        configuration=content.get("configuration", {}),
    )


def _has(measure: Measure, content: Mapping[str, Any]) -> bool:
    """Return True if the baseline must have the measure: phases are read from three, and its JSON names the others."""
    return measure.name in PHASE_CURVES or measure.name in content["means"]


def stored_form(content: Mapping[str, Any]) -> Form:
    """Return the form of a baseline's arrays from its JSON; without the field it holds samples.

    Raises:
        ValueError: the form is unknown.
    """
    return Form(content.get("form", Form.SAMPLES))


# The separator between control and curve in the names of arrays.
_SEPARATOR = "."
# The ids of a control's samples, stored beside its curves if they are not all samples.
_SAMPLES = "sample_ids"
_NAMES = ("sample_ids", "clusters", "token_hashes", "pixel_hashes")


def _npz(arrays: Mapping[str, Array]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()
