"""The arrays of a profile, computed from the readings of a pair's samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch

from harness.probe.similarity import adjusted, between_samples
from harness.profile.measures import MEASURES, RECALL, SIMILARITY, Measure
from harness.profile.profile import Array


def stacked_rows(rows: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Return the readings of all samples, one array per name with the samples as first axis."""
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def reading_rows(readings: Any, hashes: Sequence[Any]) -> list[dict[str, Array]]:
    """Return the readings of a batch, a dataclass of arrays, as one row of arrays per sample, with its input hashes."""
    numbers = {field.name: getattr(readings, field.name) for field in fields(readings)}
    return [
        {name: values[row] for name, values in numbers.items() if values is not None}
        | {"tokens": np.array(sample.tokens), "pixels": np.array(sample.pixels)}
        for row, sample in enumerate(hashes)
    ]


def curve_arrays(stacked: Mapping[str, Array]) -> dict[str, Array]:
    """Return the similarity curves of `measures.CURVES`, float32 (n, P), of stacked readings."""
    means = torch.from_numpy(stacked["means"])
    rows = [measure for measure in MEASURES.values() if measure.kind is SIMILARITY and measure.reading]
    curves = {measure.name: _values(measure, stacked) for measure in rows}
    curves["inter_adjusted"] = adjusted(means[:, :, 0], means[:, :, 1]).numpy().astype(np.float32)
    return curves


def visual_integration(real: Iterable[Array], blank: Iterable[Array]) -> Array:
    """Return the cosine distance of the last token's states between two images, float32 (n, P).

    Args:
        real: `Readings.last_units` with the image of each sample, n arrays (P, d).
        blank: the same with a blank image, in the same order.
    """
    return np.stack([_cosine_distance(*units) for units in zip(real, blank, strict=True)]).astype(np.float32)


def _cosine_distance(first: Array, second: Array) -> Array:
    """Return 1 minus the cosines of the rows of two arrays (P, d), in float64; equal rows have distance 0."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    squares = (first * first).sum(-1) * (second * second).sum(-1)
    products = (first * second).sum(-1)
    # A state of norm zero has no direction, so its cosine counts as 0.
    distance: Array = np.maximum(1.0 - products / np.sqrt(np.where(squares > 0.0, squares, 1.0)), 0.0)
    return distance


def cosines_between_samples(stacked: Mapping[str, Array]) -> Array:
    """Return `Profile.between_samples` of stacked readings, float32 (P, n, n)."""
    means = torch.from_numpy(stacked["means"])
    return between_samples(means[:, :, 0], means[:, :, 1]).numpy().astype(np.float32)


def measured_arrays(
    stacked: Mapping[str, Array], words: Sequence[int], chance_words: Sequence[int], *, recall: bool = True
) -> dict[str, Array]:
    """Return the arrays of a profile, from stacked readings and the number of words per sample, (n,) each.

    Without `recall` the arrays of hits and words are absent.
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
        elif measure.kind is not SIMILARITY and measure.reading:
            arrays[name] = _values(measure, stacked)
    return arrays


def _values(measure: Measure, stacked: Mapping[str, Array]) -> Array:
    """Return the values of a measure (n, points or layers), float32; int32 for counts of words and tokens."""
    reading = stacked[measure.reading]
    values = reading if measure.column is None else reading[:, :, measure.column]
    return values.astype(np.int32 if measure.kind.margin is None else np.float32)
