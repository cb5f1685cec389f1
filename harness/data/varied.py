"""Rendered scenes of several sizes, none square, with instructions of several lengths.

Square pictures of one size are never resized, and prompts of one length are never padded. These samples make a changed
resizing, a changed order of height and width, and a changed padding mask visible.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from harness.data.sample import Sample
from harness.data.scenes import INSTRUCTION, Scene, random_scene, stable_seed

# Width and height in pixels. Their number has no divisor in common with that of the instructions, so all combinations
# occur.
SIZES: tuple[tuple[int, int], ...] = (
    (128, 64),
    (96, 160),
    (112, 80),
    (64, 96),
    (224, 112),
    (80, 144),
    (160, 96),
    (72, 120),
)
INSTRUCTIONS: tuple[str, ...] = (
    INSTRUCTION,
    "Describe the two objects in the image and their positions.",
    "Describe the image in one sentence: name the size, the colour and the shape of both objects, and state which "
    "object is on the left or at the top.",
)


def varied_scene(index: int, seed: int) -> Scene:
    """The scene number `index` of a seed: two things, of the test split, the same on every machine."""
    rng = np.random.Generator(np.random.PCG64(stable_seed(f"scenes-varied/{seed}/{index}")))
    while True:
        scene = random_scene(rng, count=2)
        if scene.held_out:
            return scene


def scenes_varied(n: int, seed: int) -> list[Sample]:
    """Return n samples, drawn lazily; the first m are the same for every n >= m.

    Sizes and instructions take turns.
    """
    samples = []
    for index in range(n):
        scene, name = varied_scene(index, seed), f"scenes-varied-{seed}-{index:05d}"
        picture = partial(Scene.picture, scene, SIZES[index % len(SIZES)])
        instruction = INSTRUCTIONS[index % len(INSTRUCTIONS)]
        samples.append(Sample(name, picture, instruction, scene.captions(), name))
    return samples
