"""Data and model in, profile out: draws, encodes, observes and assembles, and goes on where an earlier run stopped."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.assembly import cosines_between_samples, drawing, measured_arrays, stacked_rows
from harness.choices import model_choices
from harness.configuration import configuration_of
from harness.control_curves import control_curves
from harness.data.controls import CONTROLS
from harness.data.registry import find_dataset
from harness.data.sample import Sample, Source
from harness.data.words import content_words
from harness.errors import PhaseError
from harness.forward import observe
from harness.json_text import checksum
from harness.models.embedded.cache import default_cache
from harness.models.hashes import InputHashes
from harness.models.likelihood import LIKELIHOOD_POLICY
from harness.models.prompt import Batch, UnevenPromptsError, encode, prompt_text
from harness.models.registry import find_model
from harness.models.vlm import Vlm, load_vlm
from harness.passes import Passes, SampleError, picture_fault
from harness.portions import Portions
from harness.probe.lens_task import KS, LensTask, References, Words
from harness.probe.observation import Readings
from harness.probe.self_checks import check_image_positions, check_same_hits, hearing_placeholders
from harness.probe.vocabulary import LENS_POLICY, Vocabulary
from harness.processes import processes
from harness.profile import AS_TEXT, Array, Drawing, Profile
from harness.provenance import environment, weight_hashes
from harness.reading_store import ReadingStore
from harness.word_order import likelihood_arrays

# Raised by one whenever a stored reading would no longer be what this code measures.
MEASUREMENT_VERSION = 3
DRAWN = 2
_POLICY = {
    "residual_points": "inputs of the decoder layers and of the final norm; post_norm apart",
    "text_tokens": "all but image tokens, what stands between them, BOS and padding",
}
# A stored reading is believed only if the drawn samples, measured anew, are this close to what they were beside it.
_WITNESS_TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-5}


class MeasureError(PhaseError):
    """A pair cannot be measured as asked; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The samples of a measurement with the words that the lens looks for, all in one order."""

    samples: tuple[Sample, ...]
    references: References

    def words(self, place: int) -> tuple[Words, Words]:
        """The vocabulary entries of one sample's own words, and of another's."""
        return self.references.own[place], self.references.chance[place]

    def part(self, places: Iterable[int]) -> References:
        """The words of some samples."""
        own, chance = zip(*map(self.words, places), strict=True)
        return References(own, chance)


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
        MeasureError: fewer than two samples, a batch of none, an unknown control, or a sample whose captions hold no
            word that the vocabulary can spell.
        SampleError: some samples cannot be measured; it names them, and the others are kept.
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
    if len(drawn) < max(2, DRAWN):
        raise MeasureError(
            f"{len(drawn)} samples of {dataset}: the anisotropy adjustment needs at least two; raise --phase-samples"
        )
    for sample in drawn[:DRAWN]:
        if fault := picture_fault(sample):
            raise SampleError(
                f"{vlm.name}-{dataset}: sample {sample.id} cannot be measured: {fault}; it is one of the first "
                f"{DRAWN}, which are drawn and vouch for what is kept: mend it, or take it out of the "
                "dataset, and run again"
            )
    plan = Plan(drawn, _references(drawn, Vocabulary(vlm.processor.tokenizer, vlm.anatomy.vocabulary_size)))
    # Not more at a time than was asked for: some prompts cannot stand side by side.
    at_once = Portions(min(DRAWN, batch_size), vlm.name, say)
    try:
        first, block, drawings = at_once.one(lambda size: _draw(vlm, plan, slice(0, size)))
    except UnevenPromptsError:
        first, block, drawings = _draw(vlm, plan, slice(0, 1))
    # After the first pass, in which some quantised layers round their scales for good.
    weights, checkpoint = weight_hashes(vlm.model)
    configuration = configuration_of(vlm, checkpoint)
    store = ReadingStore(
        cache,
        _key(vlm, weights, configuration, batch_size, drawn[: len(drawings)]),
        _witness(first),
        _WITNESS_TOLERANCE.get(vlm.dtype, 2e-2),
        say,
    )
    passes = Passes(vlm, store, batch_size=batch_size, hide=_hide(progress), say=say)

    def name(place: int, hashes: InputHashes) -> str:
        return _reading_name(drawn[place], hashes, *plan.words(place))

    def read(batch: Batch, places: Sequence[int]) -> Readings:
        return observe(vlm, batch, [drawn[place] for place in places], LensTask(plan.part(places), block))

    words: Mapping[str, Array] = {}
    with contextlib.closing(store):
        rows = passes.over(drawn, f"{vlm.name}-{dataset}", name, read)
        apart = {
            control: control_curves(passes, drawn, control, seed=control_seed) for control in dict.fromkeys(controls)
        }
        if word_order and data.paired:
            words = likelihood_arrays(passes, drawn, [f"{row['tokens']} {row['pixels']}" for row in rows])
    if store.contradicted:
        say(f"{vlm.name} on {dataset}: kept readings are not what the model gives now; they were measured anew")
    chosen = [
        place for place, sample in enumerate(drawn) if place >= len(drawings) and (place < DRAWN or sample.id in draw)
    ]
    drawings += tuple(_draw(vlm, plan, slice(place, place + 1))[2][0] for place in chosen)
    profile = _profile(vlm, dataset, plan, rows, weights, drawings, apart, control_seed)
    return replace(
        profile,
        arrays={**profile.arrays, **words},
        declared={**profile.declared, **({"likelihood": LIKELIHOOD_POLICY} if words else {})},
        revision=vlm.revision,
        left_out=dict(source.left_out),
        configuration=configuration,
    )


def _hide(progress: bool | None) -> bool:
    return not (sys.stderr.isatty() if progress is None else progress)


def _references(samples: Sequence[Sample], vocabulary: Vocabulary) -> References:
    """The words of each sample, and for the chance level those of the next sample that shares no cluster with it."""
    own = []
    for sample in samples:
        entries = vocabulary.references(content_words(sample.captions))
        if not any(entries):
            raise MeasureError(f"sample {sample.id}: no content word of its captions is in the model's vocabulary")
        own.append(entries)
    chance = []
    for row, sample in enumerate(samples):
        others = [*range(row + 1, len(samples)), *range(row)]
        partner = next((other for other in others if samples[other].cluster != sample.cluster), others[0])
        chance.append(own[partner])
    return References(tuple(own), tuple(chance))


def _draw(vlm: Vlm, plan: Plan, at: slice) -> tuple[Readings, tuple[int, ...], tuple[Drawing, ...]]:
    """Measures the drawn samples with the dense lens and all self-checks; learns the block from what they decode."""
    samples = plan.samples[at]
    batch = encode(vlm.processor, samples, vlm.anatomy.image_positions)
    parts = plan.part(range(*at.indices(len(plan.samples))))
    with hearing_placeholders(vlm.model) as masks:
        dense = observe(vlm, batch, samples, LensTask(parts, (), dense=True), checking=True)
    check_image_positions(vlm.model, vlm.anatomy.name, batch.groups.image, vlm.given(batch.inputs), masks)
    block = dense.block(vlm.anatomy.vocabulary_size)
    pruned = observe(vlm, batch, samples, LensTask(parts, block), checking=True)
    check_same_hits(vlm.anatomy.name, dense.hits, pruned.hits, [sample.id for sample in samples])
    return pruned, block, tuple(drawing(vlm, batch, dense, samples, row) for row in range(len(samples)))


def _witness(first: Readings) -> Any:
    """What the drawn samples give now, in one row: a change that no weight shows, as in the code, shows here."""
    # A hook or another adapter on the head shows in what the lens reads alone.
    lens = (first.hits, first.exit_agreement)
    arrays = (first.similarity, first.post_norm, first.norm_shares, first.weight_shares, *lens)
    return np.concatenate([np.ravel(array) for array in arrays if array is not None])


def _reading_name(sample: Sample, hashes: InputHashes, own: Words, chance: Words) -> str:
    content = json.dumps([sample.id, hashes.tokens, hashes.pixels, own, chance])
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def _key(
    vlm: Vlm, weights: str, configuration: Mapping[str, Any], batch_size: int, witnesses: Sequence[Sample]
) -> dict[str, Any]:
    """Everything but the sample that a reading depends on, and whose readings stand witness for it."""
    return {
        "measurement": MEASUREMENT_VERSION,
        "model": vlm.name,
        "weights": weights,
        "configuration": checksum(configuration),
        "environment": asdict(environment(vlm.device, vlm.dtype, vlm.attention)),
        "batch_size": batch_size,
        "policy": {**_POLICY, "lens": LENS_POLICY, "likelihood": LIKELIHOOD_POLICY, "lens_ks": list(KS)},
        "witnesses": [sample.id for sample in witnesses],
    }


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
            stacked, [len(words) for words in plan.references.own], [len(words) for words in plan.references.chance]
        ),
        declared={
            "instruction": instructions.pop() if len(instructions) == 1 else "one per sample",
            "prompt": prompt_text(vlm.processor, "INSTRUCTION"),
            "first_token": f"BOS {drawings[0].bos}, no text" if drawings[0].bos else AS_TEXT,
            **model_choices(vlm),
            **_POLICY,
            "lens": LENS_POLICY,
            "lens_ks": list(KS),
            "chance_words": "those of the next sample of another cluster",
            "measurement": MEASUREMENT_VERSION,
            "controls": {control: f"{CONTROLS[control]} (seed {control_seed})" for control in controls},
        },
        environment=environment(vlm.device, vlm.dtype, vlm.attention),
        weights=weights,
        drawings=drawings,
        controls=controls,
        between_samples=cosines_between_samples(stacked),
    )
