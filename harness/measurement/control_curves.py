"""The similarity curves of a pair with the picture taken out, measured beside the real ones on the same samples."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence

import torch

from harness.data.controls import blanked
from harness.data.sample import Sample
from harness.measurement.arrays import curve_arrays, stacked_rows
from harness.measurement.batches import Passes, SampleError
from harness.models.prompts.hashes import InputHashes
from harness.models.prompts.prompt import Batch
from harness.probe.forward import observe
from harness.probe.noise import noise_for_features, seed_of
from harness.probe.observation import Readings
from harness.profile.profile import Array
from harness.storage.file_names import text_digest


def control_curves(passes: Passes, samples: Sequence[Sample], control: str, *, seed: int) -> dict[str, Array]:
    """The curves of `measures.CURVES` under a control, float32 (n, P) each, the rows those of `samples`.

    Prompts that a control makes equal (all of them, where one instruction meets grey pictures of one size) go through
    the model once.

    Args:
        passes: through which the samples go.
        samples: those of the measurement.
        control: a name of `data.controls.CONTROLS`.
        seed: of the noise.
    """
    vlm, noisy = passes.vlm, control == "noise"
    shown = samples if noisy else [blanked(sample) for sample in samples]

    def name(place: int, hashes: InputHashes) -> str:
        parts = control, f"{seed} {samples[place].id}" if noisy else "", hashes.tokens, hashes.pixels
        return text_digest(json.dumps(parts), 32)

    def read(batch: Batch, places: Sequence[int]) -> Readings:
        part = [shown[place] for place in places]
        with contextlib.ExitStack() as stack:
            if noisy:
                image: torch.Tensor = batch.groups.image.to(vlm.device)
                seeds = [seed_of(sample.id, seed) for sample in part]
                stack.enter_context(noise_for_features(vlm.anatomy, image, seeds))
            return observe(vlm, batch, part, attention=False)

    results = passes.over(shown, f"{vlm.name}, {control}", name, read)
    if results.refused:
        place, reason = next(iter(results.refused.items()))
        raise SampleError(f"{vlm.name}, {control}: sample {shown[place].id}: {reason}; measure without this control")
    return curve_arrays(stacked_rows(results.rows))
