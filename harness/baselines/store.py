"""Stored profiles to compare with: finding, choosing, reading and writing `<model>/<dataset>.json` with its arrays."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tokenize import TokenError
from typing import Any, ClassVar

import numpy as np

from harness.analysis.calibration import Calibration
from harness.analysis.margins import noise_refusal
from harness.baselines.margin_table import margin_table, margin_values
from harness.baselines.stored_arrays import Form, pack_samples, pack_summary, stored_form, unpack_profile
from harness.baselines.stored_files import (
    SCHEMA,
    baseline_paths,
    change_json,
    locked_for_writing,
    model_directory,
    read_files,
    read_json,
    remove_unnamed,
    restore_advice,
    write_files,
)
from harness.baselines.stored_files import BaselineError as BaselineError
from harness.baselines.stored_files import BaselineExistsError as BaselineExistsError
from harness.baselines.stored_files import MissingBaselineError as MissingBaselineError
from harness.profile.environment import Environment
from harness.profile.measures import MEASURES, RECALL, chance_measure
from harness.profile.profile import Profile
from harness.storage.file_names import BASELINE_ENDING, file_name
from harness.storage.json_text import round_numbers

LEAST_SAMPLES = 64
# Declared choices that two profiles must share to be compared.
MUST_MATCH = (
    "instruction",
    "prompt",
    "residual_points",
    "image_tokens",
    "text_tokens",
    "lens",
    "lens_ks",
    "chance_words",
)


@dataclass(frozen=True, slots=True, repr=False)
class Baseline:
    """A stored profile with the margins that a later one is judged by.

    `margins` holds one equivalence margin per measure; `calibration` what the samples do where nothing but the
    environment changes, empty where that was not measured. `timing` holds the ratio of hooked to plain inference per
    device, dtype and attention. `summarised_samples` is the number of samples of which only a summary is stored, None
    where each of them is; the profile then has rows of that summary and no sample's.

    Samples belong together by id and inputs, or `by_id` alone. A profile that `asks_reproduction` has to be met sample
    by sample. One of the `same_run` has no noise of another environment.
    """

    by_id: ClassVar[bool] = False
    requires_reproduction: ClassVar[bool] = True
    same_run: ClassVar[bool] = False

    path: Path
    profile: Profile
    margins: Mapping[str, float]
    timing: Mapping[str, float]
    calibration: Calibration = field(default_factory=Calibration)
    summarised_samples: int | None = None

    def __repr__(self) -> str:
        return f"<Baseline {self.path}>"

    @property
    def samples(self) -> int:
        """The number of samples that were measured."""
        return self.profile.n if self.summarised_samples is None else self.summarised_samples

    @property
    def label(self) -> str:
        """Its name in legends."""
        return "baseline"

    @property
    def record_source(self) -> dict[str, str]:
        """Where it comes from, for records: below the baselines' directory a file has its model's name and its own."""
        return {"file": "/".join(self.path.parts[-2:])}

    @property
    def uncalibrated(self) -> tuple[str, str]:
        """Whose calibration is missing where one is, and what to do about that."""
        return "the baseline's", "record one with --phase-calibrate"

    def describe(self) -> str:
        """The file and what it was recorded with, for messages."""
        here = Path.cwd()
        path = self.path.relative_to(here) if self.path.is_relative_to(here) else self.path
        form = "" if self.summarised_samples is None else f"summary of {self.summarised_samples} samples, "
        return f"{path} ({form}recorded with {self.profile.environment})"


def find_baseline(root: Path, profile: Profile) -> Baseline:
    """Return the stored baseline of the profile's pair; among several the one recorded in the nearest environment.

    Raises:
        MissingBaselineError: there is none.
        BaselineError: a file is damaged, of another schema, or declares other choices than the profile.
    """
    paths = baseline_paths(root, profile.model, profile.dataset)
    if not paths:
        raise MissingBaselineError(
            f"no baseline for {profile.pair} in {root}; record one with: "
            f"pytest cases/ --phase-model {profile.model} --phase-dataset {profile.dataset} --phase-update-new"
        )
    stored = {path: Environment(**read_json(path)["environment"]) for path in paths}
    chosen = max(paths, key=lambda path: (profile.environment.nearness(stored[path]), path.name))
    baseline = read_baseline(chosen)
    _refuse_other(chosen, baseline.profile.model, profile)
    for choice in MUST_MATCH:
        if baseline.profile.declared.get(choice) != profile.declared.get(choice):
            raise BaselineError(
                f"{chosen} is not comparable: it declares {choice} = {baseline.profile.declared.get(choice)!r}, this "
                f"run {profile.declared.get(choice)!r}; record it anew with --phase-update"
            )
    return baseline


def read_baseline(path: Path) -> Baseline:
    """Return the baseline in a JSON file and the arrays beside it.

    Raises:
        BaselineError: not readable, not of this schema, or the arrays are not those that the JSON was written with.
    """
    content, arrays = read_files(path)
    try:
        return Baseline(
            path=path,
            profile=unpack_profile(content, arrays),
            margins=margin_values(content["margins"]),
            timing={name: float(ratio) for name, ratio in content["timing"].items()},
            calibration=Calibration.of_record(content.get("calibration", {})),
            summarised_samples=int(content["samples"]) if stored_form(content) is Form.SUMMARY else None,
        )
    # A header that claims too much, or is no header, comes out of numpy as the last two.
    except (KeyError, TypeError, ValueError, zipfile.BadZipFile, MemoryError, TokenError) as error:
        raise BaselineError(f"{path} is damaged ({error!r}); {restore_advice(path)}") from None


def write_baseline(
    root: Path,
    profile: Profile,
    timing: Mapping[str, float],
    phases: Mapping[str, Any],
    calibration: Calibration | None = None,
    power: Mapping[str, Any] | None = None,
    *,
    summary: bool = False,
    kept: Baseline | None = None,
    first: bool = False,
) -> Path:
    """Store a profile as the baseline of its pair and environment, both files or neither; returns the JSON's path.

    A baseline of another device type or dtype is kept and this one stands beside it. Runs that write at the same time
    take turns.

    Args:
        root: the baselines' directory.
        profile: what was measured.
        timing: hooked/plain ratios per device, dtype and attention.
        phases: boundaries, moves and claims, for the reader of the file; nothing is judged by them.
        calibration: what the samples do where nothing but the environment changes; None where that was not measured.
        power: how surely the rule finds what it should against this baseline, for the reader of the file.
        summary: store no value of any sample, only mean, covariance and number of independent rows of each measure.
            A pair that has a baseline in that form keeps it: what was not to be passed on once never is by an update.
        kept: a baseline whose file has, by now, ratios to keep and, of the same weights, a calibration.
        first: write only where the pair has no baseline.

    Raises:
        BaselineExistsError: `first`, and another run has recorded one.
        BaselineError: fewer than 64 samples, calibration noise that would hide a phase, or the directory is not
            writable or full; what was there is untouched.
        LockedError: another run is writing to the directory.
    """
    if profile.n < LEAST_SAMPLES:
        raise BaselineError(
            f"a baseline of {profile.pair} needs at least {LEAST_SAMPLES} samples, not {profile.n}: "
            "raise --phase-samples"
        )
    with locked_for_writing(model_directory(root, profile.model)) as alone:
        path = _path_for(root, profile)
        stored = [read_json(other) for other in baseline_paths(root, profile.model, profile.dataset)]
        if stored and first:
            raise BaselineExistsError(f"another run has recorded a baseline of {profile.pair} in {root}")
        if kept is not None:
            before = read_json(kept.path)
            timing = {**before["timing"], **timing}
            if calibration is None and before["weights"] == profile.weights:
                calibration = Calibration.of_record(before.get("calibration", {}))
        calibration = calibration or Calibration()
        if noise := noise_refusal(profile["inter"].mean(0, dtype=np.float64), calibration.mean_noise("inter")):
            raise BaselineError(f"no baseline of {profile.pair} was written: {noise}")
        summary = summary or any(content.get("form") == Form.SUMMARY for content in stored)
        arrays = pack_summary(profile) if summary else pack_samples(profile)
        content = _shown(profile) | {
            "schema": SCHEMA,
            "form": str(Form.SUMMARY if summary else Form.SAMPLES),
            "model": profile.model,
            "dataset": profile.dataset,
            "declared": profile.declared,
            "configuration": profile.configuration,
            "margins": margin_table(profile, calibration),
            "calibration": calibration.record(),
            # What was simulated is a comparison in pairs, which a summary never has.
            "power": {} if summary else power or {},
            "phases": phases,
            "timing": {name: round_numbers(ratio) for name, ratio in timing.items()},
        }
        write_files(path, content, arrays)
        if alone:
            remove_unnamed(path)
    return path


def write_configuration(baseline: Baseline, profile: Profile) -> Baseline:
    """Replace the stored configuration by that of a profile with the same numbers; return the baseline as it is now.

    Raises:
        BaselineError: the file is not writable; it is untouched.
        LockedError: another run is writing to the directory.
    """
    change_json(baseline.path, lambda content: content.update(configuration=profile.configuration))
    return read_baseline(baseline.path)


def write_timing(baseline: Baseline, key: str, ratio: float) -> None:
    """Store the hooked/plain ratio of a device, dtype and attention; raises as `write_configuration`."""
    change_json(baseline.path, lambda content: content["timing"].update({key: round_numbers(ratio)}))


def is_summary_of(baseline: Baseline, profile: Profile) -> bool:
    """Whether a summary tells of a profile what it would if written now, to the six digits of its JSON."""
    content = read_json(baseline.path)
    return all(content.get(name) == value for name, value in _shown(profile).items())


def shown_measures(profile: Profile) -> tuple[str, ...]:
    """Return the measures, and what is shown beside them: similarities after the final norm, and recall by chance."""
    post = (name for name in profile.arrays if name.startswith("post_norm_"))
    chance = (chance_measure(name) for name, measure in MEASURES.items() if measure.kind is RECALL)
    return profile.measured((*MEASURES, *post, *chance))


def mean_curves(profile: Profile) -> dict[str, Any]:
    """Return the means over the samples as JSON types: `means` by measure, `controls` by control and curve."""
    return {
        "means": {name: round_numbers(profile[name].mean(0)) for name in shown_measures(profile)},
        "controls": {
            control: {name: round_numbers(array.mean(0)) for name, array in curves.items()}
            for control, curves in profile.controls.items()
        },
    }


def _shown(profile: Profile) -> dict[str, Any]:
    """What the JSON shows of the profile itself."""
    return {
        "samples": profile.n,
        "environment": asdict(profile.environment),
        "weights": profile.weights,
        "revision": profile.revision,
        **mean_curves(profile),
    }


def _path_for(root: Path, profile: Profile) -> Path:
    """The file of the same device type and dtype, else the plain name if it is free, else one with both in its name."""
    mine = (profile.environment.device, profile.environment.dtype)
    paths = baseline_paths(root, profile.model, profile.dataset)
    for path in paths:
        content = read_json(path)
        _refuse_other(path, content.get("model"), profile)
        if (content["environment"]["device"], content["environment"]["dtype"]) == mine:
            return path
    plain = model_directory(root, profile.model) / f"{file_name(profile.dataset, ending=BASELINE_ENDING)}.json"
    return plain.with_name(f"{plain.stem}.{'-'.join(mine)}.json") if plain in paths else plain


def _refuse_other(path: Path, model: Any, profile: Profile) -> None:
    """Raise BaselineError if a file in a model's directory is of another; a file system may ignore case."""
    if model != profile.model:
        raise BaselineError(
            f"the baseline {path} is of the model {model}, not of {profile.model}: rename the checkpoint's directory, "
            "choose another --phase-baselines, or remove the file"
        )
