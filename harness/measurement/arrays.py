"""What the readings of a pair's samples come to: the arrays of a profile, and the samples that are drawn in full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch

from harness.data.sample import Sample
from harness.models.patches import seen_picture
from harness.models.prompts.prompt import Batch
from harness.models.vlm import Vlm
from harness.probe.observation import Readings
from harness.probe.similarity import adjusted, between_samples
from harness.profile.measures import MEASURES, RECALL, SIMILARITY, Measure
from harness.profile.profile import Array, Drawing


def stacked_rows(rows: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """The readings of all samples, one array per name with the samples as first axis."""
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def reading_rows(readings: Readings, hashes: Sequence[Any]) -> list[dict[str, Array]]:
    """The readings of a batch as one row of plain arrays a sample, with its input hashes."""
    return [_row(readings, own, row) for row, own in enumerate(hashes)]


def curve_arrays(stacked: Mapping[str, Array]) -> dict[str, Array]:
    """The similarity curves of `measures.CURVES`, float32 (n, P), of stacked readings."""
    means = torch.from_numpy(stacked["means"])
    rows = [measure for measure in MEASURES.values() if measure.kind is SIMILARITY and measure.reading]
    curves = {measure.name: _values(measure, stacked) for measure in rows}
    curves["inter_adjusted"] = adjusted(means[:, :, 0], means[:, :, 1]).numpy().astype(np.float32)
    return curves


def cosines_between_samples(stacked: Mapping[str, Array]) -> Array:
    """`Profile.between_samples` of stacked readings, float32 (P, n, n)."""
    means = torch.from_numpy(stacked["means"])
    return between_samples(means[:, :, 0], means[:, :, 1]).numpy().astype(np.float32)


def measured_arrays(
    stacked: Mapping[str, Array], words: Sequence[int], chance_words: Sequence[int], *, recall: bool = True
) -> dict[str, Array]:
    """The arrays of a profile of stacked readings and the numbers of words asked for, (n,) each.

    Without `recall` none of hits and words: there was nothing to look for.
    """
    arrays, counts = curve_arrays(stacked), dict[str, Array]()
    if recall:
        counts["hits"] = stacked["hits"][:, :, 0].astype(np.int32)
        counts["chance_hits"] = stacked["hits"][:, :, 1].astype(np.int32)
        counts["words"] = np.array(words, dtype=np.int32)
        counts["chance_words"] = np.array(chance_words, dtype=np.int32)
    for name, measure in MEASURES.items():
        if measure.reading == "similarity":
            arrays[f"post_norm_{name}"] = stacked["post_norm"][:, measure.column].astype(np.float32)
        elif measure.kind is RECALL:
            arrays |= counts
        elif measure.kind is not SIMILARITY:
            arrays[name] = _values(measure, stacked)
    return arrays


def _values(measure: Measure, stacked: Mapping[str, Array]) -> Array:
    """The values of a measure (n, places), float32; int32 of numbers of words and tokens."""
    reading = stacked[measure.reading]
    values = reading if measure.column is None else reading[:, :, measure.column]
    return values.astype(np.int32 if measure.kind.margin is None else np.float32)


def drawing(vlm: Vlm, batch: Batch, dense: Readings, samples: Sequence[Sample], row: int) -> Drawing:
    """One sample of a batch in full, from the readings of the dense lens."""
    assert dense.norm_rows is not None
    assert dense.decoded is not None
    assert dense.decoded_last is not None
    real = batch.groups.real[row].numpy()
    tokenizer = vlm.processor.tokenizer
    sample, image = samples[row], int(batch.groups.image[row].sum())
    seen = seen_picture(vlm, batch.inputs, row, len(samples), sample.picture, image)

    def texts(entries: Any) -> tuple[str, ...]:
        return tuple(tokenizer.decode([entry]) for entry in entries.tolist() if entry >= 0)

    return Drawing(
        sample_id=sample.id,
        instruction=sample.instruction,
        captions=tuple(sample.captions),
        norm_rows=dense.norm_rows[row][:, real],
        groups={name: getattr(batch.groups, name)[row].numpy()[real] for name in ("image", "instruction", "other")},
        image_tokens=tuple(texts(point[:, 0]) for point in dense.decoded[row]),
        last_token=tuple(texts(point) for point in dense.decoded_last[row]),
        tokens=tuple(
            "" if is_image else tokenizer.decode([int(entry)])
            for entry, is_image in zip(
                batch.inputs["input_ids"][row][batch.groups.real[row]],
                batch.groups.image[row][batch.groups.real[row]],
                strict=True,
            )
        ),
        picture=seen.pixels,
        grid=seen.grid,
        no_grid=seen.why,
        bos=_bos(tokenizer, batch, row),
    )


def _bos(tokenizer: Any, batch: Batch, row: int) -> str:
    """The text of the first token that is no image token; empty where it belongs to the text."""
    first = int((batch.groups.real[row] & ~batch.groups.image[row]).int().argmax())
    entry = int(batch.inputs["input_ids"][row][first])
    return str(tokenizer.decode([entry])) if entry == tokenizer.bos_token_id else ""


def _row(readings: Readings, hashes: Any, row: int) -> dict[str, Any]:
    """The readings of one sample, as plain arrays."""
    numbers = {
        field.name: getattr(readings, field.name)[row]
        for field in fields(Readings)
        if getattr(readings, field.name) is not None
    }
    return numbers | {"tokens": np.array(hashes.tokens), "pixels": np.array(hashes.pixels)}
