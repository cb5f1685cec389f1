"""Comparison of a bundled model's captions with their scenes.

Each shape word ends an object. Its colour and size are the last colour and size words since the previous object. The
k-th object of the caption is compared with the k-th object of the scene in raster order; a missing object is wrong in
every attribute. The first relation word between objects 1 and 2 is the first relation. The first relation word after
object 3 is the second relation. A relation is right only if its word is right and both objects are right in colour and
shape; the word alone is counted separately. An exact caption equals the canonical caption letter by letter.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from harness.data.scenes import COLOURS, OPPOSITE, RADII, SHAPES, Scene

REQUIRED_SHARE = 0.95
REQUIRED_ATTRIBUTES = ("colour", "shape", "relation")
_WORD = re.compile(r"[a-z]+")


@dataclass(frozen=True, slots=True)
class Reading:
    """The content of a caption: objects as (size, colour, shape) with None for an absent word, and relation words."""

    objects: tuple[tuple[str | None, str | None, str], ...]
    relations: tuple[str | None, ...]


@dataclass(slots=True)
class Tally:
    """Right answers and totals, by key."""

    right: Counter[str] = field(default_factory=Counter)
    total: Counter[str] = field(default_factory=Counter)

    def add(self, key: str, correct: bool) -> None:
        """Count an answer."""
        self.right[key] += correct
        self.total[key] += 1

    def share(self, key: str) -> float:
        """Return the share of right answers, or NaN without any answer."""
        return self.right[key] / self.total[key] if self.total[key] else float("nan")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The results of an evaluation: the tally over `samples` scenes, and Winoground's scores over `items` pairs."""

    model: str
    tally: Tally
    order: dict[str, float]
    samples: int
    items: int
    seed: int


def read_caption(caption: str) -> Reading:
    """Return the objects and relations that a caption names, by the rules in the module's docstring."""
    objects: list[tuple[str | None, str | None, str]] = []
    relations: dict[int, str] = {}
    size = colour = None
    for word in _WORD.findall(caption.lower()):
        if word in RADII:
            size = word
        elif word in COLOURS:
            colour = word
        elif word in OPPOSITE:
            relations.setdefault(len(objects), word)
        elif word in SHAPES:
            objects.append((size, colour, word))
            size = colour = None
    return Reading(tuple(objects), (relations.get(1), relations.get(3)))


def judge(truth: Scene, caption: str, tally: Tally) -> None:
    """Compare a caption with its scene and count the results in `tally`."""
    reading = read_caption(caption)
    group = f"{len(truth.things)} objects" if len(truth.things) > 1 else "1 object"
    both_right = []
    for k, thing in enumerate(truth.things):
        size, colour, shape = reading.objects[k] if k < len(reading.objects) else (None, None, None)
        novelty = "held-out combination" if thing.held_out_on(truth.background) else "combination seen in training"
        for subset in ("all", group, novelty):
            tally.add(f"colour/{subset}", colour == thing.colour)
            tally.add(f"shape/{subset}", shape == thing.shape)
        if len(truth.things) < 3:
            tally.add("size/all", size == thing.size)
        both_right.append((colour, shape) == (thing.colour, thing.shape))
    for k, relation in enumerate(truth.relations):
        correct = reading.relations[k] == relation and both_right[k] and both_right[k + 1]
        for subset in ("all", group):
            tally.add(f"relation/{subset}", correct)
            tally.add(f"relation word/{subset}", reading.relations[k] == relation)
    for subset in ("all", group):
        tally.add(f"number/{subset}", len(reading.objects) == len(truth.things))
        tally.add(f"exact/{subset}", caption.strip() == truth.captions()[0])
