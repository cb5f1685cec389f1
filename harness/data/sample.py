"""Samples (image, instruction and captions), and the datasets that they come from."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from harness.errors import PhaseError, printable
from harness.interface import in_python, option_text

if TYPE_CHECKING:
    from PIL.Image import Image


_NAMED = 8
#: Most characters of a quotation from a file or from a library's error.
LONGEST_QUOTED = 200


#: Controls by name: the same prompts without the image, and what replaces it.
CONTROLS: Mapping[str, str] = MappingProxyType(
    {
        "noise": "image features replaced by seeded Gaussian noise of the same norm per token",
        "blank": "a uniform grey picture of the same size, through the vision tower",
    }
)
#: The most samples of the noise control by default. More would narrow intervals that decide no verdict.
CONTROL_SAMPLES = 64
_GREY = (128, 128, 128)


class DataError(PhaseError):
    """A dataset cannot be read; the message names the file, the reason and the remedy."""


def quote(text: object) -> str:
    """Return an untrusted text for a message: shortened, with escapes for control characters."""
    return printable(str(text), LONGEST_QUOTED)


@dataclass(frozen=True, slots=True)
class Sample:
    """An image with the model's instruction and the reference captions.

    `load_image` returns the RGB image. It is called once per measurement, so that a dataset of 400 photographs does not
    fill the memory. `cluster` is equal for samples that are not independent (the two sides of a Winoground item, two
    captions of one photograph); resampling draws clusters.
    """

    id: str
    load_image: Callable[[], Image]
    instruction: str
    captions: tuple[str, ...]
    cluster: str


def with_grey_image(sample: Sample) -> Sample:
    """Return the sample with its image replaced by a uniform grey image of the same size."""
    from PIL import Image

    return replace(sample, load_image=lambda: Image.new("RGB", sample.load_image().size, _GREY))


@dataclass(frozen=True, slots=True)
class Source:
    """The source of a dataset on disk.

    `directory` is the user's copy. Without it the local cache of the hub is used; with `download`, missing files are
    downloaded first. Drawing samples records unusable images or items in `left_out`: the reason by id.
    """

    directory: Path | None = None
    download: bool = False
    left_out: dict[str, str] = field(default_factory=dict)

    def omission_lines(self, dataset: str, drawn: int, wanted: int) -> list[str]:
        """Return a line per reason for excluded samples, and a line if there are fewer samples than requested."""
        lines = left_out_lines(dataset, self.left_out)
        if drawn < wanted:
            lines.append(f"{dataset}: {drawn} usable samples, {wanted} were requested")
        return lines


def left_out_lines(dataset: str, left_out: Mapping[str, str]) -> list[str]:
    """Return a line per reason for excluded samples, with their ids; at most 8 reasons, then a count."""
    reasons = defaultdict(list)
    for name, reason in left_out.items():
        reasons[reason].append(name)
    lines = [f"{dataset}: left out {len(names)} ({reason}): {_some(names)}" for reason, names in reasons.items()]
    if len(lines) > _NAMED:
        rest = sum(len(names) for names in list(reasons.values())[_NAMED:])
        has = "has" if in_python() else "have"
        both = "" if in_python() else f"{option_text('json')} and "
        others = f"{len(lines) - _NAMED} other reasons: {both}the profile's left_out {has} all of them"
        lines[_NAMED:] = [f"{dataset}: left out {rest} more for {others}"]
    return lines


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


@dataclass(frozen=True, slots=True)
class Dataset:
    """A named source of samples.

    Attributes:
        name: the name in options and baselines.
        summary: a short description.
        draw: `draw(n, seed, source)` returns n samples, or fewer if there are no more. The first m are the same for
            every n >= m, so a longer run extends a shorter one.
        samples: the number of samples in its baselines, large enough for a conclusive comparison of recall; datasets
            with clusters need more.
        unavailable: `unavailable(source)` returns why this machine cannot read the dataset, with the remedy, or None.
        paired: True if clusters are items of two images and two captions, as in Winoground.
        regression_only: True if the paper's claims, times and controls are not evaluated on it.
        variable: the environment variable that names its directory; empty if the dataset needs no files.
        rephrasing: another instruction with the meaning of the one that all its samples share; empty if there is none.
    """

    name: str
    summary: str
    draw: Callable[[int, int, Source], Sequence[Sample]]
    samples: int = 128
    unavailable: Callable[[Source], str | None] = field(default=lambda _: None)
    paired: bool = False
    regression_only: bool = False
    variable: str = ""
    rephrasing: str = ""

    def source(self, directory: Path | None = None, *, download: bool = False) -> Source:
        """Return the source of its files: the directory, else the environment variable's, else the hub's cache."""
        directory_name = directory or os.environ.get(self.variable or "-")
        return Source(Path(directory_name).expanduser() if directory_name else None, download)
