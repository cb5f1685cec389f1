"""Rendered scenes, the bundled dataset: a few coloured shapes on a plain background, generated from a seed.

They need no download, and their ground truth is known exactly. The training and test splits are disjoint in seeds and
in combinations of colour, shape and background. A training scene contains no held-out combination, a test scene at
least one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from harness.data.captions import caption_variants
from harness.data.sample import Sample

if TYPE_CHECKING:
    from PIL.Image import Image

Split = Literal["train", "test"]
Relation = Literal["above", "below", "left", "right"]

SIDE = 96
INSTRUCTION = "Describe the image."

# Widths and heights of varied scenes in pixels. Their count and that of the instructions are coprime, so all
# combinations occur.
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
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 34, 34),
    "green": (34, 150, 52),
    "blue": (40, 74, 214),
    "yellow": (242, 218, 38),
    "orange": (244, 134, 24),
    "purple": (132, 46, 164),
    "pink": (250, 146, 190),
    "brown": (122, 72, 34),
    "black": (16, 16, 16),
    "white": (248, 248, 248),
}
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "diamond", "cross", "ring", "heart")
RADII: dict[str, float] = {"small": 12.0, "large": 19.0}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (244, 244, 244),
    "gray": (150, 150, 150),
    "black": (22, 22, 22),
    "sky": (176, 222, 248),
}
OPPOSITE: dict[Relation, Relation] = {"above": "below", "below": "above", "left": "right", "right": "left"}

OBJECT_COUNT_SHARES = (0.25, 0.47, 0.28)
NOISE_SD = 5.0
COLOUR_JITTER = 10.0


@dataclass(frozen=True, slots=True)
class Thing:
    """An object of a scene: its colour and shape by name, its size "small" or "large"."""

    colour: str
    shape: str
    size: str

    def held_out_on(self, background: str) -> bool:
        """Return True if no training scene contains this combination with the background (32 of 320 are held out).

        The 32 combinations are 16 pairs of colour and shape, each on two of the four backgrounds. The training split
        contains these pairs on the other two backgrounds.
        """
        colour = tuple(COLOURS).index(self.colour)
        pair = (colour + SHAPES.index(self.shape)) % 5 == 0
        return pair and (tuple(BACKGROUNDS).index(background) - colour) % 2 == 0


@dataclass(frozen=True, slots=True)
class Placement:
    """The position of a thing in the image: centre and radius in pixels, and its painted colour."""

    x: float
    y: float
    radius: float
    rgb: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Scene:
    """The ground truth of one image.

    `things` are in raster order (top row first, then left to right). `relations[0]` is the position of the first thing
    relative to the second ("above" or "left"). `relations[1]`, in scenes of three, is the position of the third thing
    relative to the second ("below" or "right"). `seed` fixes positions, shades and noise, so the scene determines the
    image.
    """

    things: tuple[Thing, ...]
    relations: tuple[Relation, ...]
    background: str
    seed: int

    def placements(self, size: tuple[int, int] = (SIDE, SIDE)) -> tuple[Placement, ...]:
        """Return the placement of every thing, in the order of `things`, in pixels of the final image.

        Positions scale with `size` (width, height), radii with its shorter side.
        """
        wide, high = (pixels / SIDE for pixels in size)
        rng = np.random.Generator(np.random.PCG64([self.seed, 0]))
        slots = _slots(self.relations, rng)
        placed = []
        for thing, (x, y) in zip(self.things, slots, strict=True):
            dx, dy = rng.uniform(-3.5, 3.5, size=2)
            radius = RADII[thing.size] * rng.uniform(0.94, 1.06) * min(wide, high)
            placed.append(Placement((x + dx) * wide, (y + dy) * high, radius, _jittered(COLOURS[thing.colour], rng)))
        return tuple(placed)

    def render(self, size: tuple[int, int] = (SIDE, SIDE)) -> Image:
        """Return the RGB image of `size` (width, height): drawn at twice the size, reduced, with Gaussian noise."""
        from harness.data.drawing import draw_shape, finish, ground

        rng = np.random.Generator(np.random.PCG64([self.seed, 1]))
        canvas = ground(size, _jittered(BACKGROUNDS[self.background], rng))
        for thing, placement in zip(self.things, self.placements(size), strict=True):
            draw_shape(canvas, thing.shape, placement.x, placement.y, placement.radius, placement.rgb)
        width, height = size
        return finish(canvas, rng.normal(0.0, NOISE_SD, size=(height, width, 3)))

    def captions(self) -> tuple[str, ...]:
        """Return five captions with the same meaning; models are trained to write the first, in raster order."""
        phrases = [(thing.size, thing.colour, thing.shape) for thing in self.things]
        return caption_variants(phrases, self.relations, [OPPOSITE[r] for r in self.relations], self.background)

    @property
    def held_out(self) -> bool:
        """True if the scene belongs to the test split: at least one thing is a held-out combination."""
        return any(thing.held_out_on(self.background) for thing in self.things)


def scene(index: int, seed: int, split: Split = "test") -> Scene:
    """Return scene `index` of a split, the same on every machine.

    Training scenes contain no held-out combination, test scenes at least one. Things of a scene differ in colour and
    in shape, so captions are unambiguous. Things in scenes of three are always small.
    """
    rng = np.random.Generator(np.random.PCG64(stable_seed(f"scenes/{split}/{seed}/{index}")))
    count = int(rng.choice((1, 2, 3), p=OBJECT_COUNT_SHARES))
    return _scene_of(split, rng, count)


def varied_scene(index: int, seed: int) -> Scene:
    """Return scene `index` of a seed, the same on every machine; it has two things and belongs to the test split."""
    rng = np.random.Generator(np.random.PCG64(stable_seed(f"scenes-varied/{seed}/{index}")))
    return _scene_of("test", rng, 2)


def _scene_of(split: Split, rng: np.random.Generator, count: int) -> Scene:
    while True:
        drawn = random_scene(rng, count)
        if drawn.held_out == (split == "test"):
            return drawn


def random_scene(rng: np.random.Generator, count: int) -> Scene:
    """Return a scene of `count` (1 to 3) things drawn from the generator, from either split."""
    background = str(rng.choice(tuple(BACKGROUNDS)))
    colours = rng.choice([name for name in COLOURS if name != background], size=count, replace=False)
    shapes = rng.choice(SHAPES, size=count, replace=False)
    sizes = ["small"] * 3 if count == 3 else rng.choice(tuple(RADII), size=count)
    first: Relation = "above" if rng.random() < 0.5 else "left"
    second: Relation = "below" if rng.random() < 0.5 else "right"
    things = (Thing(str(c), str(s), str(z)) for c, s, z in zip(colours, shapes, sizes, strict=True))
    return Scene(tuple(things), (first, second)[: count - 1], background, int(rng.integers(2**62)))


def scenes(n: int, seed: int) -> list[Sample]:
    """Return n samples of the test split, drawn lazily; the first m are the same for every n >= m."""
    return [scene_sample(scene(index, seed), name := f"scenes-{seed}-{index:05d}", name) for index in range(n)]


def scenes_varied(n: int, seed: int) -> list[Sample]:
    """Return n samples of several sizes and instructions, drawn lazily; the first m are the same for every n >= m.

    Square images of one size are never resized, and prompts of one length are never padded. These samples reveal
    changes of resizing, of the order of height and width, and of the padding mask. Sizes and instructions alternate.
    """
    samples = []
    for index in range(n):
        scene, name = varied_scene(index, seed), f"scenes-varied-{seed}-{index:05d}"
        picture = partial(Scene.render, scene, SIZES[index % len(SIZES)])
        instruction = INSTRUCTIONS[index % len(INSTRUCTIONS)]
        samples.append(Sample(name, picture, instruction, scene.captions(), name))
    return samples


def scene_sample(truth: Scene, name: str, cluster: str) -> Sample:
    """Return the scene as a sample with the default instruction; its image is rendered on demand."""
    return Sample(name, partial(Scene.render, truth), INSTRUCTION, truth.captions(), cluster)


def stable_seed(text: str) -> int:
    """Return the first 128 bits of the text's SHA-256, the same in every process and on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")


def _slots(relations: tuple[Relation, ...], rng: np.random.Generator) -> list[tuple[float, float]]:
    """Return centres in pixels, before jitter, that satisfy the relations and keep the things separate."""
    if not relations:
        x, y = rng.uniform(26.0, 70.0, size=2)
        return [(x, y)]
    if len(relations) == 1:
        along, across = (26.0, 70.0), rng.uniform(28.0, 68.0)
        return [(across, a) if relations[0] == "above" else (a, across) for a in along]
    straight = relations in (("left", "right"), ("above", "below"))
    near, middle, far = (17.0, 48.0, 79.0) if straight else (26.0, 70.0, 70.0)
    across = rng.uniform(20.0, 76.0)
    match relations:
        case ("left", "right"):
            return [(near, across), (middle, across), (far, across)]
        case ("above", "below"):
            return [(across, near), (across, middle), (across, far)]
        case ("left", _):
            return [(near, near), (far, near), (far, far)]
        case _:
            return [(near, near), (near, far), (far, far)]


def _jittered(rgb: tuple[int, int, int], rng: np.random.Generator) -> tuple[int, int, int]:
    shifted = np.clip(np.asarray(rgb) + rng.uniform(-COLOUR_JITTER, COLOUR_JITTER, size=3), 0, 255)
    r, g, b = (int(v) for v in shifted.round())
    return r, g, b
