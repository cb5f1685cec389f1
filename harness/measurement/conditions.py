"""Measuring the same samples again in other data types, attention backends, batches, threads and devices."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from harness.analysis.calibration import Calibration, Variant, noise_between
from harness.data.sample import Source
from harness.measurement.measure import measure
from harness.models.vlm import Vlm
from harness.profile.measures import MEASURES
from harness.profile.profile import Array, Profile, as_floats

_FULL, _NARROW = "float32", "bfloat16"
_BATCHES = (1, 16)
_THREADS = (1, 2)

#: Loads the model of the pair in a data type on a device.
Load = Callable[[str, str], Vlm]


@dataclass(frozen=True, slots=True)
class CalibrationRun:
    """What one calibration run changes; None leaves it as it is."""

    name: str
    dtype: str | None = None
    device: str | None = None
    attention: str | None = None
    batch_size: int | None = None
    threads: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationResult:
    """The calibration of a profile, with `changes`: per run and measure what each sample moved by, (n, points)."""

    calibration: Calibration
    changes: dict[str, dict[str, Array]]

    def largest_changes(self, name: str) -> Array:
        """Return the changes (n, points) of the run in which a measure moved most."""
        return max((changes[name] for changes in self.changes.values()), key=lambda change: float(np.abs(change).max()))


def calibration_runs(profile: Profile, batch_size: int) -> tuple[CalibrationRun, ...]:
    """Return the calibration runs that this machine can make of a profile measured with that batch size."""
    here = profile.environment
    other = _NARROW if here.dtype == _FULL else _FULL
    attention = "eager" if here.attention == "sdpa" else "sdpa"
    runs = [CalibrationRun(other, dtype=other), CalibrationRun(attention, attention=attention)]
    runs += [CalibrationRun(f"batch size {size}", batch_size=size) for size in _BATCHES if size != batch_size]
    if here.device == "cpu":
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
    """How far every measure of a profile moves when its samples are measured again in other environments.

    Args:
        vlm: the model that the profile was measured with; it comes back as it was.
        profile: the baseline to be.
        load: gives the same model in another data type or on another device.
        seed: which samples the profile has.
        batch_size: with which it was measured.
        samples: how many were drawn for it, where some of them are left out; None takes as many as it has.
        cache: where readings are kept.
        source: where the files of the dataset are.
        say: takes a line per run.

    Raises:
        PhaseError: a run cannot be measured.
    """
    variants: dict[str, Variant] = {}
    changes: dict[str, dict[str, Array]] = {}
    for run in calibration_runs(profile, batch_size):
        other = vlm
        if run.dtype or run.device:
            other = load(run.dtype or profile.environment.dtype, run.device or profile.environment.device)
        with _attention(other, run.attention), _threads(run.threads):
            again = measure(
                other,
                profile.dataset,
                samples=samples or profile.n,
                seed=seed,
                batch_size=run.batch_size or batch_size,
                controls=(),
                word_order=False,
                # Readings are kept by environment, and the number of threads is no part of it.
                cache=None if run.threads else cache,
                source=source,
            )
        again = again.select(profile.sample_ids)
        noise = {}
        changes[run.name] = {}
        for name in profile.measured(MEASURES):
            x, y = as_floats(again[name]), as_floats(profile[name])
            noise[name], changes[run.name][name] = noise_between(x, y, profile.clusters), x - y
        variants[run.name] = Variant(again.environment.dtype, noise, run.device or "")
        moved = noise["inter"]
        say(
            f"calibration of {profile.pair}, {run.name}: inter moves by {moved.mean:.2g} in the mean, by "
            f"{moved.sample:.2g} in one sample"
        )
    return CalibrationResult(Calibration(variants), changes)


@contextlib.contextmanager
def _attention(vlm: Vlm, implementation: str | None) -> Iterator[None]:
    """The decoder's attention implementation inside the block."""
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
    """The number of threads of torch inside the block."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
