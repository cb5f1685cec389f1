"""Controls: the similarity curves of a pair's samples without the information of their images."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.data.sample import CONTROLS, Dataset, Sample, with_grey_image
from harness.errors import did_you_mean
from harness.measurement.arrays import curve_arrays, stacked_rows
from harness.measurement.batches import BatchRunner, SampleError
from harness.measurement.plan import MeasureError
from harness.models.prompts.hashes import InputHashes
from harness.models.prompts.prompt import Batch
from harness.probe.forward import observe
from harness.probe.noise import noise_seed, replace_features_by_noise
from harness.probe.readings import Readings
from harness.profile.profile import Array
from harness.storage.file_names import text_digest

_NOISE = "noise"


@dataclass(frozen=True, slots=True)
class ControlCurves:
    """The curves of `measures.CURVES` under a control, float32 (samples, P) each, and the ids of its samples.

    `last_units` holds the last token's unit states (P, d) of every sample.
    """

    curves: Mapping[str, Array]
    sample_ids: tuple[str, ...]
    last_units: tuple[Array, ...] = ()


@dataclass(frozen=True, slots=True)
class ControlRequest:
    """The names of the controls to measure, the number of samples for the noise control, and its seed."""

    names: tuple[str, ...]
    samples: int
    seed: int


def requested_controls(controls: str | Sequence[str] | None, samples: int, dataset: Dataset) -> tuple[str, ...]:
    """Return the names of the controls to measure; None requests all, but none for a dataset for regression only.

    Raises:
        MeasureError: a control is unknown, or they are requested on fewer than two samples.
    """
    if samples < 2:
        raise MeasureError(f"controls on {samples} samples: an interval needs at least two")
    if controls is None:
        return () if dataset.regression_only else tuple(CONTROLS)
    controls = (controls,) if isinstance(controls, str) else controls
    if unknown := [control for control in controls if control not in CONTROLS]:
        similar = did_you_mean(unknown[0], CONTROLS)
        raise MeasureError(f"unknown control {unknown[0]!r}; known controls: {', '.join(CONTROLS)}{similar}")
    return tuple(dict.fromkeys(controls))


def measure_control(
    runner: BatchRunner, samples: Sequence[Sample], control: str, request: ControlRequest
) -> ControlCurves:
    """Measure a control: noise on the requested number of samples, a grey image on all samples.

    Prompts that become equal under a control run once, such as the same instruction with grey images that the
    processor scales to one size. A model that keeps the size of an image runs once per size and instruction.
    """
    vlm, noisy = runner.vlm, control == _NOISE
    shown = first_clusters(samples, request.samples) if noisy else [with_grey_image(sample) for sample in samples]

    def cache_name(index: int, hashes: InputHashes) -> str:
        parts = control, f"{request.seed} {shown[index].id}" if noisy else "", hashes.tokens, hashes.pixels
        return text_digest(json.dumps(parts), 32)

    def read(batch: Batch, indices: Sequence[int]) -> Readings:
        part = [shown[index] for index in indices]
        with contextlib.ExitStack() as stack:
            if noisy:
                image = batch.groups.image.to(vlm.device)
                seeds = [noise_seed(sample.id, request.seed) for sample in part]
                stack.enter_context(replace_features_by_noise(vlm.anatomy, image, seeds))
            return observe(vlm, batch, part, attention=False)

    results = runner.read_samples(shown, f"{vlm.name}, {control}", cache_name, read, control)
    if results.refused:
        index, reason = next(iter(results.refused.items()))
        raise SampleError(f"{vlm.name}, {control}: sample {shown[index].id}: {reason}; measure without this control")
    last_units = tuple(row["last_units"] for row in results.rows)
    return ControlCurves(curve_arrays(stacked_rows(results.rows)), tuple(sample.id for sample in shown), last_units)


def first_clusters(samples: Sequence[Sample], most: int) -> list[Sample]:
    """Return at most `most` samples in their order: all samples of the first clusters, two clusters at least."""
    clusters: dict[str, list[Sample]] = {}
    for sample in samples:
        clusters.setdefault(sample.cluster, []).append(sample)
    chosen: set[str] = set()
    for count, members in enumerate(clusters.values()):
        if count >= 2 and len(chosen) + len(members) > most:
            break
        chosen |= {sample.id for sample in members}
    return [sample for sample in samples if sample.id in chosen]


def declared_controls(controls: Mapping[str, ControlCurves], seed: int, n: int) -> dict[str, str]:
    """Return the declaration of each control: its definition, its seed, and its number of samples unless it is `n`."""
    counts = {control: len(measured.sample_ids) for control, measured in controls.items()}
    return {
        control: f"{CONTROLS[control]} (seed {seed}{'' if count == n else f', the first {count} samples'})"
        for control, count in counts.items()
    }
