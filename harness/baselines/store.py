"""Find, read and write baselines, the files `<model>/<dataset>.json` with their arrays."""

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
from harness.baselines.history import HISTORY, HistoryEntry, read_history
from harness.baselines.margin_table import margin_table, margin_values
from harness.baselines.mean_curves import mean_curves
from harness.baselines.stored_arrays import Form, pack_samples, pack_summary, stored_form, unpack_profile
from harness.baselines.stored_files import (
    SCHEMA,
    baseline_paths,
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
from harness.interface import measure_command, option_text
from harness.profile.environment import Environment
from harness.profile.measures import KNOCKOUT_FAMILY
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
    """A stored profile with the margins for the comparison with a later one.

    `margins` holds one equivalence margin per measure. `calibration` holds the effect of other environments on the same
    samples; it is empty if not measured. `timing` holds the ratio of hooked to plain inference per device, dtype and
    attention. `summarised_samples` is the number of samples if only a summary is stored, else None. The profile of a
    summary has artificial rows with the summary's moments. `history` holds the accepted changes, newest last.

    Samples are paired by id and inputs, or by id alone if `by_id` is True. `requires_reproduction` is True if each
    sample must be reproduced. `same_run` is True if both were measured in the same run.
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
    history: tuple[HistoryEntry, ...] = ()

    def __repr__(self) -> str:
        return f"<Baseline {self.path}>"

    @property
    def samples(self) -> int:
        """The number of samples that were measured."""
        return self.profile.n if self.summarised_samples is None else self.summarised_samples

    @property
    def label(self) -> str:
        """The name in legends."""
        return "baseline"

    @property
    def record_source(self) -> dict[str, str]:
        """The file as `<model>/<name>` below the directory of baselines, for records."""
        return {"file": "/".join(self.path.parts[-2:])}

    @property
    def uncalibrated(self) -> tuple[str, str]:
        """The owner of a missing calibration, and the remedy."""
        return "the baseline's", f"record one with {option_text('calibrate', 'True')}"

    @property
    def absence(self) -> str:
        """The reason why the baseline lacks a measure, with the remedy."""
        return f"not in the baseline; record it again with {option_text('update', 'True')}"

    def describe(self) -> str:
        """Return the file and the environment of its recording, for messages."""
        directory = Path.cwd()
        path = self.path.relative_to(directory) if self.path.is_relative_to(directory) else self.path
        form = "" if self.summarised_samples is None else f"summary of {self.summarised_samples} samples, "
        return f"{path} ({form}recorded with {self.profile.environment})"


def find_baseline(root: Path, profile: Profile) -> Baseline:
    """Return the stored baseline of the profile's pair; if there are several, that of the most similar environment.

    Raises:
        MissingBaselineError: the pair has no baseline.
        BaselineError: a file is damaged, has another schema, or declares other choices than the profile.
    """
    paths = baseline_paths(root, profile.model, profile.dataset)
    if not paths:
        raise MissingBaselineError(
            f"no baseline for {profile.pair} in {root}; record one with: "
            f"{measure_command(profile.model, profile.dataset, option_text('update_new', 'True'))}"
        )
    stored = {path: Environment(**read_json(path)["environment"]) for path in paths}
    chosen = max(paths, key=lambda path: (profile.environment.nearness(stored[path]), path.name))
    baseline = read_baseline(chosen)
    _refuse_other(chosen, baseline.profile.model, profile)
    for choice in MUST_MATCH:
        if baseline.profile.declared.get(choice) != profile.declared.get(choice):
            raise BaselineError(
                f"{chosen} is not comparable: it declares {choice} = {baseline.profile.declared.get(choice)!r}, this "
                f"run {profile.declared.get(choice)!r}; record it again with "
                f"{option_text('update', 'True')}"
            )
    return baseline


def read_baseline(path: Path) -> Baseline:
    """Return the baseline in a JSON file and the arrays beside it.

    Raises:
        BaselineError: a file is unreadable or damaged, has another schema, or the arrays do not match the JSON.
    """
    content, arrays = read_files(path)
    try:
        return Baseline(
            path=path,
            profile=unpack_profile(content, arrays),
            margins=margin_values(content["margins"]),
            timing={name: float(ratio) for name, ratio in content["timing"].items()},
            calibration=Calibration.from_record(content.get("calibration", {})),
            summarised_samples=int(content["samples"]) if stored_form(content) is Form.SUMMARY else None,
            history=read_history(content),
        )
    # numpy raises the last two for a header with too large sizes, or for no header.
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
    previous: Baseline | None = None,
    first: bool = False,
    accepted: HistoryEntry | None = None,
) -> Path:
    """Store a profile as the baseline of its pair and environment, both files or neither; return the JSON's path.

    A baseline of another device type or dtype remains beside it. Concurrent writers take turns.

    Args:
        root: the baselines' directory.
        profile: the measured profile.
        timing: hooked/plain ratios per device, dtype and attention.
        phases: boundaries, segments and claims, for readers of the file; no verdict depends on them.
        calibration: the effect of other environments on the same samples; None if it was not measured.
        power: the simulated power of comparisons with this baseline, for readers of the file.
        summary: True to store only mean, covariance and number of independent rows of each measure, and no value of
            any sample. A pair whose baseline has this form keeps it, so that an update never publishes samples.
        previous: a baseline whose file provides further ratios and, if the weights are the same, the calibration.
        first: True to write only if the pair has no baseline.
        accepted: the accepted change, which extends the history of the replaced file.

    Raises:
        BaselineExistsError: `first` is True and another run has recorded a baseline.
        BaselineError: fewer than 64 samples, calibration noise that would hide a phase, or the directory is not
            writable or full; existing files are unchanged.
        LockedError: another run is writing to the directory.
    """
    if profile.n < LEAST_SAMPLES:
        raise BaselineError(
            f"a baseline of {profile.pair} needs at least {LEAST_SAMPLES} samples, not {profile.n}: "
            f"raise {option_text('samples')}"
        )
    with locked_for_writing(model_directory(root, profile.model)) as is_locked:
        path = _path_for(root, profile)
        stored = {other: read_json(other) for other in baseline_paths(root, profile.model, profile.dataset)}
        history = [*stored.get(path, {}).get(HISTORY, ()), *([accepted.record()] if accepted else ())]
        if stored and first:
            raise BaselineExistsError(f"another run has recorded a baseline of {profile.pair} in {root}")
        if previous is not None:
            before = read_json(previous.path)
            timing = {**before["timing"], **timing}
            if calibration is None and before["weights"] == profile.weights:
                calibration = Calibration.from_record(before.get("calibration", {}))
        calibration = calibration or Calibration()
        if noise := noise_refusal(profile["inter"].mean(0, dtype=np.float64), calibration.mean_noise("inter")):
            raise BaselineError(f"no baseline of {profile.pair} was written: {noise}")
        summary = summary or any(content.get("form") == Form.SUMMARY for content in stored.values())
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
            # The simulation is of paired comparisons, which a summary never has.
            "power": {} if summary else power or {},
            "phases": phases,
            "timing": {name: round_numbers(ratio) for name, ratio in timing.items()},
            **({HISTORY: history} if history else {}),
        }
        write_files(path, content, arrays)
        if is_locked:
            remove_unnamed(path)
    return path


def is_summary_of(baseline: Baseline, profile: Profile, *, numbers_only: bool = False) -> bool:
    """Return True if the profile's summary equals the stored one to six digits; `numbers_only` ignores provenance."""
    content, shown = read_json(baseline.path), _shown(profile)
    stored_counts = content.get("control_samples", dict.fromkeys(content["controls"], content["samples"]))
    for control, count in shown["control_samples"].items():
        # Means over more samples than those of this run cannot be compared, and need no replacement.
        if stored_counts.get(control, 0) > count:
            del content["controls"][control], shown["controls"][control]
    if not profile.measured((KNOCKOUT_FAMILY,)):
        content["means"] = {
            name: mean for name, mean in content["means"].items() if not name.startswith(KNOCKOUT_FAMILY)
        }
    for name in profile.without_control():
        content["means"].pop(name, None)
    if numbers_only:
        # Measures that the stored summary lacks change none of its numbers.
        shown["means"] = {name: mean for name, mean in shown["means"].items() if name in content["means"]}
    names = ("samples", "means", "controls") if numbers_only else shown.keys() - {"control_samples"}
    return all(content.get(name) == shown[name] for name in names)


def _shown(profile: Profile) -> dict[str, Any]:
    """Return the JSON fields that describe the profile."""
    return {
        "samples": profile.n,
        "environment": asdict(profile.environment),
        "weights": profile.weights,
        "revision": profile.revision,
        **mean_curves(profile),
    }


def _path_for(root: Path, profile: Profile) -> Path:
    """Return the path of the baseline with this device type and dtype; if there is none, a path for a new one."""
    kind = (profile.environment.device, profile.environment.dtype)
    paths = baseline_paths(root, profile.model, profile.dataset)
    for path in paths:
        content = read_json(path)
        _refuse_other(path, content.get("model"), profile)
        if (content["environment"]["device"], content["environment"]["dtype"]) == kind:
            return path
    plain = model_directory(root, profile.model) / f"{file_name(profile.dataset, ending=BASELINE_ENDING)}.json"
    return plain.with_name(f"{plain.stem}.{'-'.join(kind)}.json") if plain in paths else plain


def _refuse_other(path: Path, model: Any, profile: Profile) -> None:
    """Raise BaselineError if a file belongs to another model, which can happen if the file system ignores case."""
    if model != profile.model:
        raise BaselineError(
            f"the baseline {path} is of the model {model}, not of {profile.model}: rename the checkpoint's directory, "
            f"choose another {option_text('baselines')}, or remove the file"
        )
