"""Captions of a bundled model read and compared with their scenes, word by word.

A caption is read word by word; every shape word ends an object, whose colour and size are the last such words since the
object before. The k-th object of the caption is compared with the k-th of the scene in raster order; a missing object
is wrong in everything. The first relation word between objects 1 and 2 is the first relation, the first one after
object 3 is the second; a relation counts as right only where the word is right **and** both objects it joins are right
in colour and shape (the word alone is counted beside it). An exact caption equals the canonical one letter by letter.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from harness.data.scenes import COLOURS, OPPOSITE, RADII, SHAPES, Scene

BAR = 0.95
BARRED = ("colour", "shape", "relation")
_WORD = re.compile(r"[a-z]+")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a caption says: objects as (size, colour, shape), None where unsaid, and its relation words."""

    objects: tuple[tuple[str | None, str | None, str], ...]
    relations: tuple[str | None, ...]


@dataclass(slots=True)
class Tally:
    """Right answers out of all, by what was asked."""

    right: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)

    def add(self, key: str, correct: bool) -> None:
        """Count one answer."""
        self.right[key] += correct
        self.asked[key] += 1

    def share(self, key: str) -> float:
        """Return the share of right answers; NaN where nothing was asked."""
        return self.right[key] / self.asked[key] if self.asked[key] else float("nan")


@dataclass(frozen=True, slots=True)
class Measured:
    """What an evaluation found of a model: the tally over `samples` scenes, Winoground's scores over `items` pairs."""

    model: str
    tally: Tally
    order: dict[str, float]
    samples: int
    items: int
    seed: int


def read_caption(caption: str) -> Reading:
    """Return the objects and relations that a caption names; see the rule of judgement above."""
    objects: list[tuple[str | None, str | None, str]] = []
    found: dict[int, str] = {}
    size = colour = None
    for word in _WORD.findall(caption.lower()):
        if word in RADII:
            size = word
        elif word in COLOURS:
            colour = word
        elif word in OPPOSITE:
            found.setdefault(len(objects), word)
        elif word in SHAPES:
            objects.append((size, colour, word))
            size = colour = None
    return Reading(tuple(objects), (found.get(1), found.get(3)))


def judge(truth: Scene, caption: str, tally: Tally) -> None:
    """Compare one caption with the scene it was written for and count."""
    said = read_caption(caption)
    group = f"{len(truth.things)} objects" if len(truth.things) > 1 else "1 object"
    both_right = []
    for k, thing in enumerate(truth.things):
        size, colour, shape = said.objects[k] if k < len(said.objects) else (None, None, None)
        news = "held-out combination" if thing.held_out_on(truth.background) else "combination seen in training"
        for where in ("all", group, news):
            tally.add(f"colour/{where}", colour == thing.colour)
            tally.add(f"shape/{where}", shape == thing.shape)
        if len(truth.things) < 3:
            tally.add("size/all", size == thing.size)
        both_right.append((colour, shape) == (thing.colour, thing.shape))
    for k, relation in enumerate(truth.relations):
        correct = said.relations[k] == relation and both_right[k] and both_right[k + 1]
        for where in ("all", group):
            tally.add(f"relation/{where}", correct)
            tally.add(f"relation word/{where}", said.relations[k] == relation)
    for where in ("all", group):
        tally.add(f"number/{where}", len(said.objects) == len(truth.things))
        tally.add(f"exact/{where}", caption.strip() == truth.captions()[0])
