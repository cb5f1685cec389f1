"""Data and model in, profile out: draws, encodes, observes and assembles, and goes on where an earlier run stopped."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness.data.controls import CONTROLS
from harness.data.datasets import find_dataset
from harness.data.sample import Source, left_out_lines
from harness.errors import PhaseError
from harness.measurement.arrays import cosines_between_samples, measured_arrays, stacked_rows
from harness.measurement.batch_size import Portions
from harness.measurement.batches import Passes, SampleError, picture_fault, refused_pictures
from harness.measurement.choices import model_choices
from harness.measurement.control_curves import control_curves
from harness.measurement.drawn_samples import draw_in_full
from harness.measurement.plan import Plan, plan_of
from harness.measurement.rank_settings import measured_settings
from harness.measurement.ranks import ProcessError, processes
from harness.measurement.reading_cache import ReadingStore
from harness.measurement.reading_keys import (
    MEASUREMENT_VERSION,
    POLICY,
    reading_name,
    store_key,
    witness_row,
    witness_tolerance,
)
from harness.measurement.word_order import likelihood_arrays
from harness.models.library_messages import plain_messages
from harness.models.likelihood import LIKELIHOOD_POLICY
from harness.models.prompts.hashes import InputHashes
from harness.models.prompts.prompt import Batch, PromptError, UnevenPromptsError, prompt_text
from harness.models.registry import find_model
from harness.models.vlm import Vlm, load_vlm
from harness.probe.forward import observe
from harness.probe.lens_task import KS, LensTask
from harness.probe.observation import Readings
from harness.probe.vocabulary import LENS_POLICY, Vocabulary
from harness.profile.configuration import configuration_of
from harness.profile.environment import environment, weight_hashes
from harness.profile.profile import AS_TEXT, Array, Drawing, Profile
from harness.storage.cache_directory import default_cache

DRAWN = 2


class MeasureError(PhaseError):
    """A pair cannot be measured as asked; the message says why and what to do."""


@plain_messages()
def measure(
    vlm: Vlm | str,
    dataset: str,
    *,
    samples: int | None = None,
    seed: int = 0,
    batch_size: int = 8,
    controls: Sequence[str] | None = None,
    control_seed: int = 0,
    word_order: bool = True,
    draw: Collection[str] = (),
    cache: Path | None = None,
    source: Source | None = None,
    progress: bool | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Profile:
    """The profile of a model on a dataset, from one forward pass per batch; each control costs one more.

    A sample whose picture the processor refuses, or whose captions have no word that the vocabulary can spell, is left
    out and named in the profile's `left_out`.

    Args:
        vlm: a model's name, or your own model and processor in a `Vlm`.
        dataset: a name of `data.registry.DATASETS`.
        samples: how many samples are drawn; None draws as many as the dataset declares.
        seed: which samples are drawn.
        batch_size: samples per forward pass, left-padded; the profile does not depend on it beyond rounding.
        controls: names of `data.controls.CONTROLS`, measured on the same samples in the same run; None measures all,
            and none beside a dataset for regression only.
        control_seed: of the noise.
        word_order: whether Winoground's scores are measured too, where the dataset has items of two pictures and two
            captions; costs four forward passes an item.
        draw: ids of samples to keep in full besides the first two, for figures; ids of no sample are passed over.
        cache: where readings are kept, so that an interrupted run goes on; None keeps nothing.
        source: where the files of a dataset on disk are; None looks where its environment variable says.
        progress: whether to show a bar; None shows one where there is a terminal.
        say: takes a line on what was found in the cache.

    Raises:
        LookupError: no model or dataset of that name.
        MeasureError: fewer than two samples that can be measured, a batch of none, or an unknown control.
        SampleError: some samples cannot be read or give NaN; it names them, and the others are kept.
        MemoryShortageError: memory runs out with one sample at a time.
        StoreError: there is no such cache, and none can be made.
        PromptError, SelfCheckError, AttentionError: see there.
    """
    if isinstance(vlm, str):
        vlm = load_vlm(find_model(vlm), cache=cache or default_cache(), device=processes().device("auto"))
    if batch_size < 1:
        raise MeasureError(f"batch size {batch_size}: at least one sample goes through the model at a time")
    data = find_dataset(dataset)
    if controls is None:
        controls = () if data.regression_only else tuple(CONTROLS)
    unknown = [control for control in controls if control not in CONTROLS]
    if unknown:
        raise MeasureError(f"unknown control {unknown[0]!r}; known controls: {', '.join(CONTROLS)}")
    source = source or data.source()
    wanted = data.samples if samples is None else samples
    drawn = tuple(data.draw(wanted, seed, source))
    for line in source.said(dataset, len(drawn), wanted):
        say(line)
    vocabulary = Vocabulary(vlm.processor.tokenizer, vlm.anatomy.vocabulary_size)
    plan = plan_of(drawn, vocabulary, paired=data.paired)
    for line in left_out_lines(dataset, plan.left_out):
        say(line)
    if plan.no_recall:
        say(f"{dataset}: recall is left out: {plan.no_recall}")
    known = set(plan.left_out)
    plan, first, block, drawings = _draw_first(vlm, plan, dataset, batch_size, say)
    # After the first pass, in which some quantised layers round their scales for good.
    weights, checkpoint = weight_hashes(vlm.model)
    configuration = configuration_of(vlm, checkpoint)
    key = store_key(vlm, weights, configuration, batch_size, plan.samples[: len(drawings)])
    asked = {"controls": controls, "control seed": control_seed, "word order": word_order}
    processes().require_same(f"{vlm.name} on {dataset}", "began", lambda: measured_settings(key, plan.samples, asked))
    store = ReadingStore(cache, key, witness_row(first), witness_tolerance(vlm.dtype), say)
    passes = Passes(vlm, store, batch_size=batch_size, hide=_hide(progress), say=say)

    tried = plan

    def name(place: int, hashes: InputHashes) -> str:
        return reading_name(tried.samples[place], hashes, *tried.words(place))

    def read(batch: Batch, places: Sequence[int]) -> Readings:
        return observe(vlm, batch, [tried.samples[place] for place in places], LensTask(tried.part(places), block))

    words: Mapping[str, Array] = {}
    with contextlib.closing(store), _saying_kept(store, f"{vlm.name} on {dataset}", say):
        results = passes.over(tried.samples, f"{vlm.name}-{dataset}", name, read)
        plan = tried.without({tried.samples[place].id: reason for place, reason in results.refused.items()})
        _require_two(plan, dataset)
        measured = [sample for place, sample in enumerate(tried.samples) if place not in results.refused]
        rows = [row for row, sample in zip(results.rows, measured, strict=True) if sample.id not in plan.left_out]
        for line in left_out_lines(dataset, {id_: why for id_, why in plan.left_out.items() if id_ not in known}):
            say(line)
        apart = {
            control: control_curves(passes, plan.samples, control, seed=control_seed)
            for control in dict.fromkeys(controls)
        }
        if word_order and data.paired:
            words = likelihood_arrays(passes, plan.samples, [f"{row['tokens']} {row['pixels']}" for row in rows])
    if store.contradicted:
        say(f"{vlm.name} on {dataset}: kept readings are not what the model gives now; they were measured anew")
    drawings = _drawings(vlm, plan, drawings, draw)
    profile = _profile(vlm, dataset, plan, rows, weights, drawings, apart, control_seed)
    return replace(
        profile,
        arrays={**profile.arrays, **words},
        declared={**profile.declared, **({"likelihood": LIKELIHOOD_POLICY} if words else {})},
        revision=vlm.revision,
        left_out={**source.left_out, **plan.left_out},
        configuration=configuration,
    )


@contextlib.contextmanager
def _saying_kept(store: ReadingStore, what: str, say: Callable[[str], None]) -> Iterator[None]:
    """Say what is kept if the block is interrupted, or another process is lost."""
    try:
        yield
    except (KeyboardInterrupt, ProcessError):
        # The terminal may be gone.
        with contextlib.suppress(OSError):
            say(f"{what}: ended early; {store.kept}")
        raise


def _hide(progress: bool | None) -> bool:
    return not (sys.stderr.isatty() if progress is None else progress)


def _require_two(plan: Plan, dataset: str) -> None:
    """Raise MeasureError if fewer than two samples are left to measure."""
    if len(plan.samples) < max(2, DRAWN):
        examples = (f"; {len(plan.left_out)} are left out, such as {id_} ({why})" for id_, why in plan.left_out.items())
        raise MeasureError(
            f"{len(plan.samples)} samples of {dataset}{next(examples, '')}: the anisotropy adjustment needs at least "
            "two; raise --phase-samples"
        )


def _draw_first(
    vlm: Vlm, plan: Plan, dataset: str, batch_size: int, say: Callable[[str], None]
) -> tuple[Plan, Readings, tuple[int, ...], tuple[Drawing, ...]]:
    """Draw the first samples whose picture the processor takes.

    Returns:
        The plan without those before them, the readings of the drawn samples, the block and the drawings.

    Raises:
        MeasureError: fewer than two samples are left.
        SampleError: the picture of one of the first cannot be had.
        PromptError: the processor refuses the prompt, whatever the picture.
    """
    # Not more at a time than was asked for: some prompts cannot stand side by side.
    at_once = Portions(min(DRAWN, batch_size), vlm.name, say)
    while True:
        _require_two(plan, dataset)
        for sample in plan.samples[:DRAWN]:
            if fault := picture_fault(sample):
                raise SampleError(
                    f"{vlm.name}-{dataset}: sample {sample.id} cannot be measured: {fault}; it is one of the first "
                    f"{DRAWN}, which are drawn and vouch for what is kept: mend it, or take it out of the "
                    "dataset, and run again"
                )
        try:
            return plan, *at_once.one(lambda size: draw_in_full(vlm, plan, slice(0, size)))  # noqa: B023 - called at once
        except UnevenPromptsError:
            if at_once.size == 1:
                raise
            at_once.size = 1
        except PromptError:
            refused = refused_pictures(vlm, plan.samples[:DRAWN])
            if not refused:
                raise
            plan = plan.without(refused)


def _drawings(vlm: Vlm, plan: Plan, drawings: Sequence[Drawing], wanted: Collection[str]) -> tuple[Drawing, ...]:
    """The first samples in full, and those that are wanted by id."""
    drawn = {drawing.sample_id: drawing for drawing in drawings}
    return tuple(
        drawn.get(sample.id) or draw_in_full(vlm, plan, slice(place, place + 1))[2][0]
        for place, sample in enumerate(plan.samples)
        if place < DRAWN or sample.id in wanted
    )


def _profile(
    vlm: Vlm,
    dataset: str,
    plan: Plan,
    rows: Sequence[dict[str, Array]],
    weights: str,
    drawings: tuple[Drawing, ...],
    controls: Mapping[str, Mapping[str, Array]],
    control_seed: int,
) -> Profile:
    stacked = stacked_rows(rows)
    instructions = {sample.instruction for sample in plan.samples}
    return Profile(
        model=vlm.name,
        dataset=dataset,
        sample_ids=tuple(sample.id for sample in plan.samples),
        clusters=tuple(sample.cluster for sample in plan.samples),
        token_hashes=tuple(str(name) for name in stacked["tokens"]),
        pixel_hashes=tuple(str(name) for name in stacked["pixels"]),
        arrays=measured_arrays(
            stacked,
            [len(words) for words in plan.references.own],
            [len(words) for words in plan.references.chance],
            recall=not plan.no_recall,
        ),
        declared={
            "instruction": instructions.pop() if len(instructions) == 1 else "one per sample",
            "prompt": prompt_text(vlm.processor, "INSTRUCTION"),
            "first_token": f"BOS {drawings[0].bos}, no text" if drawings[0].bos else AS_TEXT,
            **model_choices(vlm),
            **POLICY,
            "lens": LENS_POLICY,
            "lens_ks": list(KS),
            "chance_words": "those of the next sample of another cluster",
            **({"recall_left_out": plan.no_recall} if plan.no_recall else {}),
            "measurement": MEASUREMENT_VERSION,
            "controls": {control: f"{CONTROLS[control]} (seed {control_seed})" for control in controls},
        },
        environment=environment(vlm.device, vlm.dtype, vlm.attention),
        weights=weights,
        drawings=drawings,
        controls=controls,
        between_samples=cosines_between_samples(stacked),
    )
