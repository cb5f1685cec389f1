"""The similarity curves of a pair with the picture taken out, measured beside the real ones on the same samples."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence

import torch
from tqdm import tqdm

from harness.assembly import curve_arrays, reading_rows, stacked_rows
from harness.data.controls import blanked
from harness.data.sample import Sample
from harness.forward import observe
from harness.models.prompt import Batch, encode
from harness.models.vlm import Vlm
from harness.probe.noise import noise_for_features, seed_of
from harness.profile import Array
from harness.reading_store import ReadingStore


def control_curves(
    vlm: Vlm, samples: Sequence[Sample], control: str, *, seed: int, batch_size: int, store: ReadingStore, hide: bool
) -> dict[str, Array]:
    """The curves of `profile.CURVES` under a control, float32 (n, P) each, the rows those of `samples`.

    Prompts that a control makes equal (all of them, where one instruction meets grey pictures of one size) go through
    the model once.

    Args:
        vlm: the model.
        samples: those of the measurement.
        control: a name of `data.controls.CONTROLS`.
        seed: of the noise.
        batch_size: samples per forward pass.
        store: where readings are kept.
        hide: whether to show no bar.
    """
    noisy = control == "noise"
    seen: dict[str, dict[str, Array]] = {}
    names: list[str] = []
    for start in tqdm(range(0, len(samples), batch_size), desc=f"{vlm.name}, {control}", leave=False, disable=hide):
        part = [sample if noisy else blanked(sample) for sample in samples[start : start + batch_size]]
        batch = encode(vlm.processor, part, vlm.anatomy.image_positions)
        own = [
            _name(control, f"{seed} {sample.id}" if noisy else "", hashes.tokens, hashes.pixels)
            for sample, hashes in zip(part, batch.hashes, strict=True)
        ]
        names += own
        missing = [name for name in dict.fromkeys(own) if name not in seen]
        if not missing:
            continue
        kept = store.read(missing)
        if kept is None:
            rows = _read(vlm, batch, part, [seed_of(sample.id, seed) for sample in part] if noisy else None)
            kept = [rows[own.index(name)] for name in missing]
            store.write(missing, kept)
        seen |= dict(zip(missing, kept, strict=True))
    return curve_arrays(stacked_rows([seen[name] for name in names]))


def _read(vlm: Vlm, batch: Batch, samples: Sequence[Sample], seeds: Sequence[int] | None) -> list[dict[str, Array]]:
    with contextlib.ExitStack() as stack:
        if seeds is not None:
            image: torch.Tensor = batch.groups.image.to(vlm.device)
            stack.enter_context(noise_for_features(vlm.anatomy, image, seeds))
        return reading_rows(observe(vlm, batch, samples, attention=False), batch.hashes)


def _name(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
