"""Calibration: repeated measurement in other data types, attention backends, batches, threads and devices."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from harness.analysis.calibration import Calibration, RunNoise, noise_between
from harness.data.sample import Source
from harness.measurement.measure import measure
from harness.models.vlm import Vlm
from harness.profile.measures import KNOCKOUT_FAMILY, KNOCKOUT_WINDOW, MEASURES
from harness.profile.profile import Array, Profile, as_floats

_FULL, _NARROW = "float32", "bfloat16"
_BATCHES = (1, 16)
_THREADS = (1, 2)
# A knockout costs about ten passes, and the noise of environments needs no more samples.
_KNOCKOUT_SAMPLES = 32

#: Loads the model of the pair in a data type on a device.
Load = Callable[[str, str], Vlm]


@dataclass(frozen=True, slots=True)
class CalibrationRun:
    """The settings that one calibration run changes; None leaves a setting unchanged."""

    name: str
    dtype: str | None = None
    device: str | None = None
    attention: str | None = None
    batch_size: int | None = None
    threads: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationResult:
    """The calibration of a profile, with the `changes` (n, points) of all samples per run and measure."""

    calibration: Calibration
    changes: dict[str, dict[str, Array]]

    def largest_changes(self, name: str) -> Array:
        """Return the changes (n, points) of the run in which a measure changed most."""
        return max((changes[name] for changes in self.changes.values()), key=lambda change: float(np.abs(change).max()))


def calibration_runs(profile: Profile, batch_size: int) -> tuple[CalibrationRun, ...]:
    """Return the calibration runs that this machine supports for a profile measured with that batch size."""
    environment = profile.environment
    other = _NARROW if environment.dtype == _FULL else _FULL
    attention = "eager" if environment.attention == "sdpa" else "sdpa"
    runs = [CalibrationRun(other, dtype=other), CalibrationRun(attention, attention=attention)]
    runs += [CalibrationRun(f"batch size {size}", batch_size=size) for size in _BATCHES if size != batch_size]
    if environment.device == "cpu":
        runs += [
            CalibrationRun(f"{count} thread{'s' * (count > 1)}", threads=count)
            for count in _THREADS
            if count != torch.get_num_threads()
        ]
        if torch.cuda.is_available():
            runs.append(CalibrationRun("cuda", device="cuda"))
    return tuple(runs)


def calibrate(
    vlm: Vlm,
    profile: Profile,
    load: Load,
    *,
    seed: int,
    batch_size: int,
    samples: int | None = None,
    cache: Path | None = None,
    source: Source | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> CalibrationResult:
    """Measure a profile's samples again in other environments; return how far every measure changes.

    Args:
        vlm: the model that the profile was measured with; its settings are restored.
        profile: the profile that becomes a baseline.
        load: loads the same model in another data type or on another device.
        seed: the seed that the profile's samples were drawn with.
        batch_size: the batch size of the profile.
        samples: number of samples drawn for the profile, excluded ones counted; None means its n.
        cache: directory of cached readings.
        source: location of the dataset's files.
        say: receives a line per run.

    Raises:
        PhaseError: a run cannot be measured.
    """
    variants: dict[str, RunNoise] = {}
    changes: dict[str, dict[str, Array]] = {}
    for run in calibration_runs(profile, batch_size):
        other = vlm
        if run.dtype or run.device:
            other = load(run.dtype or profile.environment.dtype, run.device or profile.environment.device)
        with attention_implementation(other, run.attention), _threads(run.threads):
            again = measure(
                other,
                profile.dataset,
                samples=samples or profile.n,
                seed=seed,
                batch_size=run.batch_size or batch_size,
                # The calibration of a measure that needs a control needs it too.
                controls=sorted({MEASURES[name].kind.control for name in profile.measured(MEASURES)} - {""}),
                word_order=False,
                knockout=bool(profile.measured((KNOCKOUT_FAMILY,))),
                knockout_window=profile.declared.get(KNOCKOUT_WINDOW),
                knockout_samples=_KNOCKOUT_SAMPLES,
                drawings=False,
                # The number of threads is not part of the cache key.
                cache=None if run.threads else cache,
                source=source,
            )
        again = again.select(profile.sample_ids)
        noise = {}
        changes[run.name] = {}
        for name in again.measured(profile.measured(MEASURES)):
            x, y = as_floats(again[name]), as_floats(profile[name])
            # A knockout is measured again on the first samples only.
            rows = np.flatnonzero(np.isfinite(x).all(axis=1)).tolist()
            x, y, clusters = x[rows], y[rows], [profile.clusters[row] for row in rows]
            noise[name], changes[run.name][name] = noise_between(x, y, clusters), x - y
        variants[run.name] = RunNoise(again.environment.dtype, noise, run.device or "")
        inter = noise["inter"]
        say(
            f"calibration of {profile.pair}, {run.name}: inter changes by up to {inter.mean:.2g} in the mean and "
            f"{inter.sample:.2g} in a sample"
        )
    return CalibrationResult(Calibration(variants), changes)


@contextlib.contextmanager
def attention_implementation(vlm: Vlm, implementation: str | None) -> Iterator[None]:
    """Set the decoder's attention implementation inside the block."""
    if implementation is None:
        yield
        return
    before = vlm.attention
    key = vlm.anatomy.attention_key
    vlm.model.set_attn_implementation({key: implementation} if key else implementation)
    try:
        yield
    finally:
        vlm.model.set_attn_implementation({key: before} if key else before)


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Set torch's number of threads inside the block."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
