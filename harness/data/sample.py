"""What one measurement sees: a picture, an instruction and the captions that name what is in the picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with the instruction put to the model and the reference captions of the image.

    `picture` returns the RGB image and is called once per measurement, so that a dataset of 400 photographs does not
    lie in memory. `cluster` names what is shared between samples that are not independent (the two halves of a
    Winoground item, two captions of one photograph); resampling draws clusters.
    """

    id: str
    picture: Callable[[], Image]
    instruction: str
    captions: tuple[str, ...]
    cluster: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """A named source of samples.

    `draw(n, seed)` returns n samples; the first m of them are the same for every n >= m, so that a longer run extends
    a shorter one. `samples` is how many its baselines hold: as many as the rule needs to decide on recall, more where
    samples come in clusters. `unavailable()` returns why this machine cannot read the dataset together with the
    remedy, or None.
    """

    name: str
    summary: str
    draw: Callable[[int, int], Sequence[Sample]]
    samples: int = 128
    unavailable: Callable[[], str | None] = lambda: None
