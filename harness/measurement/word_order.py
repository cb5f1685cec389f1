"""Winoground's scores of a pair: which caption of an item the model finds likelier of which of its two pictures."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest
from tqdm import tqdm

from harness.data.sample import Sample
from harness.measurement.batch_size import AdaptiveBatchSize
from harness.measurement.batches import BatchRunner
from harness.measurement.ranks import processes
from harness.models.likelihood import CHANCE, caption_likelihoods, winoground_scores
from harness.profile.profile import Array, Profile
from harness.storage.file_names import text_digest

CONFIDENCE = 0.99
# Rows of an item: each of its two captions with each of its two pictures.
_ROWS = 4


@dataclass(frozen=True, slots=True)
class Score:
    """The share of items with a score, its exact binomial interval at 99 %, what a guess reaches, and the items."""

    share: float
    low: float
    high: float
    chance: float
    items: int


def likelihood_arrays(passes: BatchRunner, samples: Sequence[Sample], inputs: Sequence[str]) -> dict[str, Array]:
    """Return the log-likelihoods of an item's two captions given each sample's picture, in nats, float64 (n,) each.

    `likelihood_own` is that of the sample's own first caption, `likelihood_other` that of the other side of its item;
    NaN for a sample whose other side was not drawn.

    Args:
        passes: through which the samples went; each item takes four rows, side by side where memory allows it.
        samples: those of the measurement; samples of one cluster are the two sides of an item.
        inputs: what names the model inputs of each.
    """
    arrays = {name: np.full(len(samples), np.nan) for name in ("likelihood_own", "likelihood_other")}
    items = _items([sample.cluster for sample in samples])
    at_once = max(1, passes.batch_size // _ROWS)
    portions = passes.adaptive_size.at_least(_ROWS)
    batches = [items[start : start + at_once] for start in range(0, len(items), at_once)]
    what = f"{passes.vlm.name}, captions"

    def tables() -> list[list[Array]]:
        share = processes().share(len(batches))
        results: list[list[Array]] = []
        for number in tqdm(share, desc=what, leave=False, disable=passes.hide):
            processes().begin_batch(f"{what}, batch {len(results) + 1} of {len(share)}")
            results.append(_tables(passes, portions, batches[number], samples, inputs))
        return results

    for part, found in zip(batches, processes().gather(what, tables), strict=True):
        for (first, second), table in zip(part, found, strict=True):
            arrays["likelihood_own"][[first, second]] = table[0, 0], table[1, 1]
            arrays["likelihood_other"][[first, second]] = table[0, 1], table[1, 0]
    return arrays


def _tables(
    passes: BatchRunner,
    portions: AdaptiveBatchSize,
    items: Sequence[Sequence[int]],
    samples: Sequence[Sample],
    inputs: Sequence[str],
) -> list[Array]:
    """Return the likelihoods of some items, (images, captions) each, kept or measured."""

    def likelihoods(rows: Sequence[tuple[Sample, str]]) -> list[float]:
        return list(caption_likelihoods(passes.vlm, *zip(*rows, strict=True)))

    names = [_name([(inputs[side], samples[side].captions[0]) for side in sides]) for sides in items]
    kept = passes.cache.read(names)
    if kept is None:
        rows = [(samples[image], samples[text].captions[0]) for sides in items for image in sides for text in sides]
        tables = np.array(portions.map(rows, likelihoods)).reshape(len(items), 2, 2)
        kept = [{"likelihoods": table} for table in tables]
        passes.cache.write(names, kept)
    return [row["likelihoods"] for row in kept]


def word_order_scores(profile: Profile) -> dict[str, Score]:
    """Text, image and group score of a profile; empty where no item was measured on both sides."""
    if "likelihood_own" not in profile.arrays:
        return {}
    own, other = profile["likelihood_own"], profile["likelihood_other"]
    items = [sides for sides in _items(profile.clusters) if np.isfinite(own[sides]).all()]
    if not items:
        return {}
    tables = np.array([[[own[a], other[a]], [other[b], own[b]]] for a, b in items])
    scores = {}
    for name, right in winoground_scores(tables).items():
        interval = binomtest(int(right.sum()), len(items)).proportion_ci(CONFIDENCE)
        share = float(right.mean())
        scores[name] = Score(share, float(interval.low), float(interval.high), CHANCE[name], len(items))
    return scores


def _items(clusters: Sequence[str]) -> list[list[int]]:
    """Return the rows of the two sides of each item that has both."""
    sides = defaultdict(list)
    for row, cluster in enumerate(clusters):
        sides[cluster].append(row)
    return [rows for rows in sides.values() if len(rows) == 2]


def _name(sides: Sequence[tuple[str, str]]) -> str:
    """What the likelihoods of an item depend on beside the model: inputs and caption of both sides."""
    return text_digest(json.dumps(["likelihood", list(sides)]), 32)
