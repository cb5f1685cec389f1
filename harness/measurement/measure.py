"""`measure` returns the profile of a model on a dataset; an interrupted measurement continues from the cache."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.data.datasets import find_dataset
from harness.data.sample import CONTROL_SAMPLES, Dataset, Source, left_out_lines
from harness.measurement.assembly import Observed, assemble_profile
from harness.measurement.batches import BatchRunner
from harness.measurement.control_curves import ControlRequest, measure_control, requested_controls
from harness.measurement.drawn_samples import FirstSamples, collect_drawings, measure_first_samples
from harness.measurement.knockout_losses import KnockoutRequest, measure_knockout
from harness.measurement.plan import MeasureError, Plan, plan_measurement
from harness.measurement.progress import Progress
from harness.measurement.rank_settings import measurement_settings
from harness.measurement.ranks import ProcessError, processes
from harness.measurement.reading_cache import ReadingCache
from harness.measurement.reading_keys import (
    reading_cache_key,
    reading_name,
    witness_row,
    witness_tolerance,
)
from harness.measurement.word_order import likelihood_arrays
from harness.models.library_messages import plain_messages
from harness.models.prompts.hashes import InputHashes
from harness.models.prompts.prompt import Batch
from harness.models.vlm import Vlm
from harness.probe.forward import observe
from harness.probe.lens_task import LensTask
from harness.probe.readings import Readings
from harness.probe.vocabulary import Vocabulary
from harness.profile.configuration import read_configuration
from harness.profile.environment import weight_hashes
from harness.profile.pair import Pair
from harness.profile.profile import Profile


@plain_messages()
def measure(
    vlm: Vlm | str,
    dataset: str,
    *,
    samples: int | None = None,
    seed: int = 0,
    batch_size: int = 8,
    controls: str | Sequence[str] | None = None,
    control_samples: int = CONTROL_SAMPLES,
    control_seed: int = 0,
    word_order: bool = True,
    knockout: bool = False,
    knockout_window: int | None = None,
    knockout_samples: int | None = None,
    drawings: bool = True,
    draw: Collection[str] = (),
    instruction: str | None = None,
    cache: Path | None = None,
    source: Source | None = None,
    device: str = "auto",
    dtype: str = "auto",
    download: bool = False,
    trust_code: bool = False,
    allow_unused_weights: bool = False,
    progress: bool | Progress | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Profile:
    """Return the profile of a model on a dataset, from one forward pass per batch; each control costs one more.

    A sample is excluded if the processor refuses its image, or if the vocabulary cannot spell any word of its captions.
    The profile's `left_out` lists excluded samples with their reasons.

    Args:
        vlm: a directory of save_pretrained, a repository ORG/NAME, the name of a registered model, or a loaded `Vlm`.
        dataset: a name of `data.datasets.DATASETS`.
        samples: number of samples to draw; None draws as many as the dataset declares.
        seed: the seed of the draw.
        batch_size: samples per forward pass, left-padded; the profile does not depend on it beyond rounding.
        controls: one or more names of `data.sample.CONTROLS` to measure on the same samples; None measures all, but
            none for a dataset for regression only.
        control_samples: number of samples, the first ones, for the noise control; no cluster is divided. The blank
            control has all samples, because equal prompts run once.
        control_seed: the seed of the noise.
        word_order: True to measure Winoground's scores if the dataset has items of two images and two captions; this
            costs a forward pass per image, and one per item over its captions if the model supports a key-value cache.
        knockout: True to measure how much less likely the first caption of each sample becomes if later tokens cannot
            attend to the image in a window of layers. It costs several passes; `controls` take the first samples only.
        knockout_window: the number of layers in such a window; None takes a sixth of the depth.
        knockout_samples: the number of samples for it, the first ones; None takes all.
        drawings: True to record the first two samples in full, for figures; this takes seconds.
        draw: ids of further samples to record in full; unknown ids are ignored.
        instruction: replaces the instruction of every sample; None keeps those of the dataset.
        cache: directory of cached readings, from which an interrupted run continues; None disables the cache.
        source: location of the files of a dataset on disk; None uses its environment variable, or the hub's cache.
        device: as in `Vlm.load`, which loads a named model; a loaded model stays on its device.
        dtype: as in `Vlm.load`.
        download: True to download weights and data that are missing from the hub's local cache.
        trust_code: as in `Vlm.load`.
        allow_unused_weights: as in `Vlm.load`.
        progress: True to show a progress bar; None shows one in a terminal. A `Progress` counts the pairs of a run.
        say: receives lines on the cache and on excluded samples.

    Raises:
        LookupError: there is no model or dataset of that name.
        MeasureError: fewer than two samples remain, the batch size is below 1, a control is unknown or on fewer
            than two samples, or an argument is about loading and the model is loaded.
        SampleError: some samples cannot be read or give NaN; the message names them, and the others are cached.
        MemoryShortageError: memory runs out with one sample per batch.
        ReadingCacheError: the cache does not exist and cannot be created.
        PromptError, SelfCheckError, AttentionError: see these classes.

    Example:
        >>> import harness
        >>> profile = harness.measure("path/or/ORG/NAME", "scenes", samples=64)  # doctest: +SKIP
        >>> profile["inter"].shape  # doctest: +SKIP
        (64, 31)
    """
    loading = {"device": device, "dtype": dtype, "trust_code": trust_code, "allow_unused_weights": allow_unused_weights}
    vlm = _loaded(vlm, loading, download=download, cache=cache)
    if batch_size < 1:
        raise MeasureError(f"batch size {batch_size}: at least one sample per forward pass is needed")
    data = find_dataset(dataset)
    wanted = ControlRequest(requested_controls(controls, control_samples, data), control_samples, control_seed)
    flow = None
    if knockout:
        flow = KnockoutRequest(knockout_window, knockout_samples, wanted.names, control_samples, control_seed)
    source = source or data.source(download=download)
    plan = _plan(vlm, data, data.samples if samples is None else samples, seed, source, say, instruction)
    start = measure_first_samples(vlm, plan, dataset, batch_size, say, drawings=drawings)
    # Hashed after the first pass, because some quantised layers change their scales permanently in it.
    weights, checkpoint = weight_hashes(vlm.model)
    configuration = read_configuration(vlm, checkpoint)
    key = reading_cache_key(vlm, weights, configuration, batch_size, start.samples, instruction)
    arguments = {
        "controls": wanted.names,
        "control samples": control_samples,
        "control seed": control_seed,
        "word order": word_order,
        "knockout": (knockout, knockout_window, knockout_samples),
    }
    title = f"{vlm.name} on {dataset}"
    processes().require_same_settings(title, "began", lambda: measurement_settings(key, start.plan.samples, arguments))
    readings_cache = ReadingCache(cache, key, witness_row(start.readings), witness_tolerance(vlm.dtype), say)
    if not isinstance(progress, Progress):
        bar = sys.stderr.isatty() if progress is None else progress
        progress = Progress(str(Pair(vlm.name, dataset)), bar=bar)
    runner = BatchRunner(vlm, readings_cache, batch_size=batch_size, progress=progress, say=say)
    with contextlib.closing(readings_cache), _report_interruption(readings_cache, title, say):
        observed = _observe(runner, start, dataset, wanted, word_order and data.paired, flow, say)
    if readings_cache.contradicted:
        say(f"{title}: cached readings do not match the current model; they were measured again")
    profile = assemble_profile(vlm, dataset, observed, start.bos, weights, control_seed)
    return replace(
        profile,
        drawings=collect_drawings(vlm, observed.plan, start.drawings, draw, first=drawings),
        left_out={**source.left_out, **observed.plan.excluded},
        configuration=configuration,
    )


def _loaded(vlm: Vlm | str, loading: Mapping[str, Any], *, download: bool, cache: Path | None) -> Vlm:
    """Return a loaded model; a named one is loaded with the arguments `loading` of `Vlm.load`."""
    if isinstance(vlm, str):
        device = processes().device(str(loading["device"]))
        return Vlm.load(vlm, **{**loading, "device": device}, download=download, cache=cache)
    if given := [name for name, value in loading.items() if value not in ("auto", False)]:
        raise MeasureError(f"{vlm.name} is loaded: {given[0]} is for a model that is named by a path or as ORG/NAME")
    return vlm


def _plan(
    vlm: Vlm,
    data: Dataset,
    wanted: int,
    seed: int,
    source: Source,
    say: Callable[[str], None],
    instruction: str | None,
) -> Plan:
    """Draw the samples and plan their measurement; report excluded samples and omitted recall."""
    drawn = tuple(data.draw(wanted, seed, source))
    if instruction is not None:
        drawn = tuple(replace(sample, instruction=instruction) for sample in drawn)
    plan = plan_measurement(drawn, Vocabulary(vlm.processor.tokenizer, vlm.anatomy.vocabulary_size), paired=data.paired)
    no_recall = [f"{data.name}: recall is left out: {plan.no_recall}"] if plan.no_recall else []
    for line in (
        source.omission_lines(data.name, len(drawn), wanted) + left_out_lines(data.name, plan.excluded) + no_recall
    ):
        say(line)
    return plan


def _observe(
    runner: BatchRunner,
    start: FirstSamples,
    dataset: str,
    wanted: ControlRequest,
    word_order: bool,
    flow: KnockoutRequest | None,
    say: Callable[[str], None],
) -> Observed:
    """Measure all samples without and with each control, the likelihoods of captions if `word_order`, and knockouts."""
    vlm, drawn_plan = runner.vlm, start.plan

    def cache_name(index: int, hashes: InputHashes) -> str:
        return reading_name(drawn_plan.samples[index], hashes, *drawn_plan.words(index))

    def read(batch: Batch, indices: Sequence[int]) -> Readings:
        task = LensTask(drawn_plan.part(indices), start.block)
        return observe(vlm, batch, [drawn_plan.samples[index] for index in indices], task)

    runner.progress.expect(1 + len(wanted.names) + word_order + (flow.passes if flow else 0))
    results = runner.read_samples(drawn_plan.samples, str(Pair(vlm.name, dataset)), cache_name, read)
    plan = drawn_plan.without({drawn_plan.samples[index].id: reason for index, reason in results.refused.items()})
    plan.require_two(dataset)
    measured = [sample for index, sample in enumerate(drawn_plan.samples) if index not in results.refused]
    rows = [row for row, sample in zip(results.rows, measured, strict=True) if sample.id not in plan.excluded]
    for line in left_out_lines(dataset, {id_: why for id_, why in plan.excluded.items() if id_ not in start.reported}):
        say(line)
    controls = {name: measure_control(runner, plan.samples, name, wanted) for name in wanted.names}
    inputs = [f"{row['tokens']} {row['pixels']}" for row in rows]
    likelihoods = likelihood_arrays(runner, plan.samples, inputs) if word_order else {}
    losses = measure_knockout(runner, plan.samples, flow) if flow else ({}, {})
    return Observed(plan, rows, controls, likelihoods, losses)


@contextlib.contextmanager
def _report_interruption(store: ReadingCache, title: str, say: Callable[[str], None]) -> Iterator[None]:
    """Report the cached readings if the block is interrupted or another process is lost."""
    try:
        yield
    except (KeyboardInterrupt, ProcessError):
        # The terminal may be gone.
        with contextlib.suppress(OSError):
            say(f"{title}: ended early; {store.progress}")
        raise
