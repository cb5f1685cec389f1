"""Word order: two pictures and two captions that are made of the same words.

Built like Winoground (Thrush et al. 2022): only the order of the words tells which caption belongs to which picture.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from harness.data.sample import Sample
from harness.data.scenes import Scene, Thing, random_scene, scene_sample, stable_seed

Swap = Literal["objects", "colours"]


def order_item(index: int, seed: int) -> tuple[Scene, Scene]:
    """The two scenes of an item: the second has the first one's objects, or their colours, exchanged.

    Both sides belong to the test split (each holds a held-out combination of colour and shape). The kind of exchange
    is drawn per item.
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
