"""Winoground's scores of a pair, from the likelihood of each caption of an item given each of its images."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from harness.data.sample import Sample
from harness.measurement.batch_size import AdaptiveBatchSize
from harness.measurement.batches import BatchRunner
from harness.measurement.ranks import processes
from harness.models.caption_scorer import CaptionScorer
from harness.models.likelihood import CHANCE, winoground_scores
from harness.profile.profile import Array, Profile
from harness.storage.file_names import text_digest

CONFIDENCE = 0.99
# An item has two images, and each of them is read with two captions.
_IMAGES_PER_ITEM = _CAPTIONS_PER_IMAGE = 2


@dataclass(frozen=True, slots=True)
class Score:
    """The share of items solved, its exact binomial interval at 99 %, the chance level and the number of items."""

    share: float
    low: float
    high: float
    chance: float
    items: int


def likelihood_arrays(runner: BatchRunner, samples: Sequence[Sample], inputs: Sequence[str]) -> dict[str, Array]:
    """Return the log-likelihoods of an item's two captions given each sample's image, in nats, float64 (n,) each.

    `likelihood_own` belongs to the sample's own first caption, `likelihood_other` to that of its item's other side.
    Both are NaN for a sample whose other side was not drawn.

    Args:
        runner: the batch runner of the measurement; its batch size is the number of images per batch, one item or more.
        samples: the measured samples; two samples of one cluster are the sides of an item.
        inputs: the hashes of each sample's model inputs.
    """
    arrays = {name: np.full(len(samples), np.nan) for name in ("likelihood_own", "likelihood_other")}
    items = _items([sample.cluster for sample in samples])
    items_per_batch = max(1, runner.batch_size // _IMAGES_PER_ITEM)
    # The rows of a batch are pairs of image and caption. The captions of an image share the pass over its prompt.
    adaptive_size = runner.adaptive_size.at_least(_CAPTIONS_PER_IMAGE * runner.adaptive_size.size)
    scorer = CaptionScorer(runner.vlm)
    batches = [items[start : start + items_per_batch] for start in range(0, len(items), items_per_batch)]
    title = f"{runner.vlm.name}, captions"

    def tables() -> list[list[Array]]:
        share = processes().share(len(batches))
        results: list[list[Array]] = []
        with runner.progress.samples(len(samples), "captions") as advance:
            for number in share:
                processes().begin_batch(f"{title}, batch {len(results) + 1} of {len(share)}")
                results.append(_tables(runner, scorer, adaptive_size, batches[number], samples, inputs))
                advance(-(-len(samples) // len(share)))
        return results

    for batch, results in zip(batches, processes().gather(title, tables), strict=True):
        for (first, second), table in zip(batch, results, strict=True):
            arrays["likelihood_own"][[first, second]] = table[0, 0], table[1, 1]
            arrays["likelihood_other"][[first, second]] = table[0, 1], table[1, 0]
    return arrays


def _tables(
    runner: BatchRunner,
    scorer: CaptionScorer,
    adaptive_size: AdaptiveBatchSize,
    items: Sequence[Sequence[int]],
    samples: Sequence[Sample],
    inputs: Sequence[str],
) -> list[Array]:
    """Return the likelihoods of some items, (images, captions) each, cached or measured."""

    def likelihoods(rows: Sequence[tuple[Sample, str]]) -> list[float]:
        return list(scorer(*zip(*rows, strict=True)))

    names = [_name([(inputs[side], samples[side].captions[0]) for side in sides]) for sides in items]
    cached = runner.cache.read(names)
    if cached is None:
        rows = [(samples[image], samples[text].captions[0]) for sides in items for image in sides for text in sides]
        tables = np.array(adaptive_size.map(rows, likelihoods)).reshape(len(items), 2, 2)
        cached = [{"likelihoods": table} for table in tables]
        runner.cache.write(names, cached)
    return [row["likelihoods"] for row in cached]


def word_order_scores(profile: Profile) -> dict[str, Score]:
    """Return the text, image and group scores of a profile; empty if no item was measured on both sides."""
    if "likelihood_own" not in profile.arrays:
        return {}
    matching, mismatched = profile["likelihood_own"], profile["likelihood_other"]
    items = [sides for sides in _items(profile.clusters) if np.isfinite(matching[sides]).all()]
    if not items:
        return {}
    tables = np.array([[[matching[a], mismatched[a]], [mismatched[b], matching[b]]] for a, b in items])
    scores = {}
    for name, right in winoground_scores(tables).items():
        low, high = _share_interval(int(right.sum()), len(items))
        scores[name] = Score(float(right.mean()), low, high, CHANCE[name], len(items))
    return scores


def _share_interval(hits: int, items: int) -> tuple[float, float]:
    """Return the exact interval of a share by Clopper and Pearson (1934)."""
    tail = (1.0 - CONFIDENCE) / 2.0
    low = float(special.betaincinv(hits, items - hits + 1, tail)) if hits else 0.0
    return low, float(special.betaincinv(hits + 1, items - hits, 1.0 - tail)) if hits < items else 1.0


def _items(clusters: Sequence[str]) -> list[list[int]]:
    """Return the two rows of each item of which both sides are present."""
    sides = defaultdict(list)
    for row, cluster in enumerate(clusters):
        sides[cluster].append(row)
    return [rows for rows in sides.values() if len(rows) == 2]


def _name(sides: Sequence[tuple[str, str]]) -> str:
    """Return the cache name of an item's likelihoods, a hash of the inputs and captions of both sides."""
    return text_digest(json.dumps(["likelihood", list(sides)]), 32)
