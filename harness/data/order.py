"""The word-order dataset: items of two images and two captions made of the same words.

As in Winoground (Thrush et al. 2022), only the order of the words determines which caption belongs to which image.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from harness.data.sample import Sample
from harness.data.scenes import Scene, Thing, random_scene, scene_sample, stable_seed

Swap = Literal["objects", "colours"]


def order_item(index: int, seed: int) -> tuple[Scene, Scene]:
    """Return the two scenes of an item; the second swaps the objects, or their colours, of the first.

    Both scenes belong to the test split: each contains a held-out combination. The kind of swap is drawn per item.
    """
    rng = np.random.Generator(np.random.PCG64(stable_seed(f"scenes-order/{seed}/{index}")))
    swap: Swap = "objects" if rng.random() < 0.5 else "colours"
    while True:
        scene = random_scene(rng, count=2)
        other = replace(scene, things=_exchanged(scene.things, swap))
        if scene.held_out and other.held_out:
            return scene, other


def scenes_order(n: int, seed: int) -> list[Sample]:
    """Return n samples, two per item: samples 2k and 2k + 1 are the sides 0 and 1 of item k and share its cluster.

    The id is the cluster followed by "-0" or "-1". An odd n ends with the first side of its last item. The first m
    samples are the same for every n >= m.
    """
    samples: list[Sample] = []
    for index in range((n + 1) // 2):
        cluster = f"scenes-order-{seed}-{index:05d}"
        samples += [scene_sample(s, f"{cluster}-{side}", cluster) for side, s in enumerate(order_item(index, seed))]
    return samples[:n]


def _exchanged(things: tuple[Thing, ...], swap: Swap) -> tuple[Thing, ...]:
    a, b = things
    if swap == "objects":
        return b, a
    return Thing(b.colour, a.shape, a.size), Thing(a.colour, b.shape, b.size)
