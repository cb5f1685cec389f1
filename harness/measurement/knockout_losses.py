"""The losses of a pair's captions under attention knockout, for real images and for controls."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from harness.analysis.knockout_windows import window_size
from harness.data.sample import Sample, with_grey_image
from harness.measurement.arrays import stacked_rows
from harness.measurement.batches import BatchRunner, SampleError
from harness.measurement.control_curves import first_clusters
from harness.models.forward_pass import forward_pass
from harness.models.likelihood import answer_tokens, answered_inputs
from harness.models.prompts.chat import PromptError
from harness.models.prompts.hashes import InputHashes
from harness.models.prompts.prompt import Batch
from harness.models.vlm import Vlm
from harness.probe.answer_pass import AnswerPass, KnockoutError, Surrounding
from harness.probe.answered_prompts import AnsweredPrompts
from harness.probe.attention import AttentionError
from harness.probe.knockout import KNOCKOUT_POLICY, PATHS, Knockout, KnockoutReadings
from harness.probe.noise import noise_seed, replace_features_by_noise
from harness.probe.precision import OneDnnLayers
from harness.profile.measures import KNOCKOUT_PATHS, KNOCKOUT_WINDOW, OTHER_TOKENS, knockout_array
from harness.profile.profile import Array
from harness.storage.file_names import text_digest

# The controls of a knockout have at most so many samples, the first of a pair: each costs as much as two directions.
_CONTROL_SAMPLES = 32


@dataclass(frozen=True, slots=True)
class KnockoutRequest:
    """The number of layers in a window (None: a sixth of the depth) and the samples, the first ones (None: all).

    `controls` are names of `data.sample.CONTROLS`, measured on `control_samples` with noise from `seed`; without any,
    the control of other prompt tokens is omitted as well.
    """

    window: int | None = None
    samples: int | None = None
    controls: tuple[str, ...] = ()
    control_samples: int = _CONTROL_SAMPLES
    seed: int = 0

    @property
    def passes(self) -> int:
        """The number of passes over samples, for the progress."""
        return 1 + (len(self.controls) + 1 if self.controls else 0)


def measure_knockout(
    runner: BatchRunner, samples: Sequence[Sample], request: KnockoutRequest
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the arrays of a profile on the knockout, and their declaration.

    Arrays have a row per sample, NaN for samples that were not requested. With L layers: `knockout`,
    `knockout_answer` and `knockout_instruction` (n, L), in nats, hold at each layer the loss of its window, by path;
    `knockout_onward` (n, starts) the losses if the path `later` is blocked from a layer on; `knockout_likelihood` (n,)
    the log-likelihood and `knockout_caption_tokens` (n,) the number of tokens of the caption. For the controls noise
    and blank `knockout_<control>` and `knockout_<control>_instruction` (n, L), and `knockout_other` (n, L) for other
    tokens.

    If the model's attention cannot be blocked, there are no arrays, and the declaration says why.
    """
    depth = runner.vlm.anatomy.depth
    size = window_size(depth, request.window)
    knockout = Knockout(runner.vlm.anatomy, size, runner.vlm.dtype)
    shown = list(samples) if request.samples is None else first_clusters(samples, request.samples)
    try:
        if uncaptioned := [sample.id for sample in shown if not sample.captions]:
            raise KnockoutError(f"sample {uncaptioned[0]} has no caption, whose likelihood a knockout changes")
        shown = _by_caption(shown)
        real = _measure(runner, knockout, shown, KNOCKOUT_PATHS, "", request.seed)
        controls: dict[str, tuple[list[Sample], Mapping[str, Array]]] = {}
        if request.controls:
            part = _by_caption(first_clusters(samples, min(request.control_samples, len(shown), _CONTROL_SAMPLES)))
            for name in (*request.controls, OTHER_TOKENS):
                paths = (OTHER_TOKENS,) if name == OTHER_TOKENS else ("later", "instruction")
                controls[name] = part, _measure(runner, knockout, part, paths, name, request.seed)
    except (KnockoutError, AttentionError, PromptError, SampleError) as error:
        return {}, {"knockout_left_out": str(error)}
    spread = partial(_spread, [sample.id for sample in samples])
    counts = [len(window) for window in knockout.windows]
    arrays = {f"knockout_{name}": spread(real[name], shown) for name in ("onward", "likelihood", "caption_tokens")}
    # At each layer the loss of its window, so that all curves are over layers.
    for control, (part, losses) in {"": (shown, real), **controls}.items():
        for path in (name for name in PATHS if name in losses):
            arrays[knockout_array(control, path)] = spread(np.repeat(losses[path], counts, axis=1), part)
    return arrays, {KNOCKOUT_WINDOW: size, "knockout": KNOCKOUT_POLICY}


def _spread(ids: Sequence[str], values: Array, part: Sequence[Sample]) -> Array:
    """Return the values of some samples with a row per id, NaN for the others, float32."""
    rows = {sample: row for row, sample in enumerate(ids)}
    spread = np.full((len(ids), *values.shape[1:]), np.nan, dtype=np.float32)
    spread[[rows[sample.id] for sample in part]] = values
    return spread


def _by_caption(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples sorted by the length of their captions, because padding costs as much as tokens."""
    return sorted(samples, key=lambda sample: len(sample.captions[0]))


def _measure(
    runner: BatchRunner, knockout: Knockout, samples: Sequence[Sample], paths: Sequence[str], control: str, seed: int
) -> Mapping[str, Array]:
    """Return the readings of samples, stacked; `control` is noise, blank, other, or empty."""
    vlm, noisy = runner.vlm, control == "noise"
    shown = [with_grey_image(sample) for sample in samples] if control == "blank" else list(samples)

    def cache_name(index: int, hashes: InputHashes) -> str:
        sample = shown[index]
        seeded = f"{seed} {sample.id}" if noisy or control == OTHER_TOKENS else ""
        inputs = hashes.tokens, hashes.pixels, sample.captions[0]
        return text_digest(json.dumps(["knockout", len(knockout.windows[0]), control, seeded, *paths, *inputs]), 32)

    def read(batch: Batch, indices: Sequence[int]) -> KnockoutReadings:
        part = [shown[index] for index in indices]
        seeds = [noise_seed(sample.id, seed) for sample in part]
        surrounding: Surrounding = contextlib.nullcontext
        if noisy:
            surrounding = partial(replace_features_by_noise, vlm.anatomy, seeds=seeds)
        with OneDnnLayers():
            answers = caption_pass(vlm, batch, part, seeds, knockout, surrounding)
            return knockout(answers, paths, all_starts=not control)

    results = runner.read_samples(shown, f"{vlm.name}, knockout {control}".strip(), cache_name, read, "knockout")
    if results.refused:
        index, reason = next(iter(results.refused.items()))
        raise SampleError(f"{vlm.name}, knockout: sample {shown[index].id}: {reason}")
    return stacked_rows(results.rows)


@torch.inference_mode()
def caption_pass(
    vlm: Vlm,
    batch: Batch,
    samples: Sequence[Sample],
    seeds: Sequence[int],
    knockout: Knockout,
    surrounding: Surrounding = contextlib.nullcontext,
) -> AnswerPass:
    """Return the complete pass over the prompts of `samples`, each answered by its first caption.

    Raises:
        KnockoutError, AttentionError, ForwardError, PromptError: see these classes.
    """
    targets, is_token = answer_tokens(vlm.processor, samples, [sample.captions[0] for sample in samples])
    inputs = answered_inputs(batch, vlm.model.config.model_type, targets, is_token)
    prompts = AnsweredPrompts.of(batch.groups, targets, is_token, seeds)

    def run(positions: int) -> Any:
        return forward_pass(vlm, inputs, batch.groups.image, [sample.id for sample in samples], positions=positions)

    checking, unembeds = not knockout.checked, knockout.unembeds
    return AnswerPass(
        vlm.model, vlm.anatomy, prompts, run, knockout.starts, surrounding, checking=checking, unembeds=unembeds
    )
