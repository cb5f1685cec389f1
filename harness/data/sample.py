"""What one measurement sees: a picture, an instruction and the captions that name what is in the picture."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from harness.errors import PhaseError, printable

if TYPE_CHECKING:
    from PIL.Image import Image


_NAMED = 8
#: Characters of what is quoted from a file, or of somebody else's error.
LONGEST_QUOTED = 200


#: Controls by name, the same prompts with the picture taken out, and what each puts in its place.
CONTROLS: Mapping[str, str] = MappingProxyType(
    {
        "noise": "image features replaced by seeded Gaussian noise of the same norm per token",
        "blank": "a uniform grey picture of the same size, through the vision tower",
    }
)
_GREY = (128, 128, 128)


class DataError(PhaseError):
    """A dataset cannot be read as asked; the message says which file, why, and what to do."""


def quote(text: object) -> str:
    """Return a text of somebody else's as messages show it: cut, with its control characters spelled out."""
    return printable(str(text), LONGEST_QUOTED)


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with the instruction put to the model and the reference captions of the image.

    `load_image` returns the RGB image and is called once per measurement, so that a dataset of 400 photographs does not
    lie in memory. `cluster` names what is shared between samples that are not independent (the two halves of a
    Winoground item, two captions of one photograph); resampling draws clusters.
    """

    id: str
    load_image: Callable[[], Image]
    instruction: str
    captions: tuple[str, ...]
    cluster: str


def with_grey_image(sample: Sample) -> Sample:
    """Return the sample with a uniform grey picture of the same size in the place of its own."""
    from PIL import Image

    return replace(sample, load_image=lambda: Image.new("RGB", sample.load_image().size, _GREY))


@dataclass(frozen=True, slots=True)
class Source:
    """Where a dataset that lies on disk is looked for.

    `directory` is the user's own copy; without one the local cache of the hub is searched, and with `download` filled
    first. Whoever draws samples notes in `left_out` what could not be used: the id of an image or item, and why.
    """

    directory: Path | None = None
    download: bool = False
    left_out: dict[str, str] = field(default_factory=dict)

    def omission_lines(self, dataset: str, drawn: int, wanted: int) -> list[str]:
        """One line per reason why something was left out, and one where there are fewer samples than wanted."""
        lines = left_out_lines(dataset, self.left_out)
        if drawn < wanted:
            lines.append(f"{dataset}: {drawn} usable samples, {wanted} were asked for")
        return lines


def left_out_lines(dataset: str, left_out: Mapping[str, str]) -> list[str]:
    """One line per reason why samples were left out, by their ids; of many reasons the first, and a count."""
    reasons = defaultdict(list)
    for name, reason in left_out.items():
        reasons[reason].append(name)
    lines = [f"{dataset}: left out {len(names)} ({reason}): {_some(names)}" for reason, names in reasons.items()]
    if len(lines) > _NAMED:
        rest = sum(len(names) for names in list(reasons.values())[_NAMED:])
        others = f"{len(lines) - _NAMED} other reasons: --phase-json and the profile's left_out have all of them"
        lines[_NAMED:] = [f"{dataset}: left out {rest} more for {others}"]
    return lines


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


@dataclass(frozen=True, slots=True)
class Dataset:
    """A named source of samples.

    `draw(n, seed, source)` returns n samples, fewer where there are not so many; the first m of them are the same for
    every n >= m, so that a longer run extends a shorter one. `samples` is how many its baselines hold: as many as the
    rule needs to decide on recall, more where samples come in clusters. `unavailable(source)` returns why this machine
    cannot read the dataset together with the remedy, or None. `paired` says that clusters are items of two pictures
    and two captions as in Winoground. `regression_only` is True if neither the paper's claims nor times are asked of it
    and no control is measured beside it. `variable` names the environment variable of its directory; a dataset without
    one needs no files.
    """

    name: str
    summary: str
    draw: Callable[[int, int, Source], Sequence[Sample]]
    samples: int = 128
    unavailable: Callable[[Source], str | None] = field(default=lambda _: None)
    paired: bool = False
    regression_only: bool = False
    variable: str = ""

    def source(self, directory: Path | None = None, *, download: bool = False) -> Source:
        """Where its files are: in the directory, else where its environment variable says, else the hub's."""
        given = directory or os.environ.get(self.variable or "-")
        return Source(Path(given).expanduser() if given else None, download)
