"""Winoground (Thrush et al. 2022): two photographs and two captions made of the same words, from files or parquet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness.data.local_copy import LocalCopy
from harness.data.parquet import Cell, column_names, parquet_files, rows
from harness.data.photograph import Place, fault, photograph
from harness.data.sample import DataError, Sample, Source
from harness.data.selection import first_usable, item_name, tidy_captions
from harness.errors import shown

DATASET = "winoground"
INSTRUCTION = "Describe the image."
VARIABLE = "VLM_PHASE_WINOGROUND"
#: Kinds of image file, the first to be used in front where a stem has several.
SUFFIXES: tuple[str, ...] = (".png", ".jpg", ".jpeg", ".webp")
TEXT_COLUMNS: tuple[str, ...] = ("id", "caption_0", "caption_1")
IMAGE_COLUMNS: tuple[str, ...] = ("image_0", "image_1")
COPY = LocalCopy(
    DATASET,
    "facebook/winoground",
    ("data/*.parquet",),
    f"give the directory with examples.jsonl and the images with --phase-data {DATASET}=DIR (or the variable "
    f"{VARIABLE}), or, as the dataset is gated, accept the licence on its page at the hub, set an access token "
    "(HF_TOKEN) and add --phase-download",
)


_LONGEST = 200  # characters of what is quoted from a file


@dataclass(frozen=True, slots=True)
class Example:
    """One item: where its two pictures lie and the caption of each; side k's caption is true of picture k."""

    places: tuple[Place, Place]
    captions: tuple[str, str]

    def fault(self) -> str | None:
        """Why the item cannot be used, both sides looked at, or None."""
        reasons = [reason for place in self.places if (reason := fault(place)) is not None]
        reasons += [f"caption_{side} is empty" for side, text in enumerate(self.captions) if not tidy_captions([text])]
        return "; ".join(reasons) or None


def winoground(n: int, seed: int, source: Source) -> list[Sample]:
    """Return n samples, two per item: samples 2j and 2j + 1 are the sides 0 and 1 of one item and share its cluster.

    The cluster is `winoground-` and the item's id, the sample's id that followed by "-0" or "-1". An odd n ends with
    the first side of its last item; fewer are returned where no more items are usable. The first m are the
    same for every n >= m. Of an item with a missing or broken picture neither side is used, and both are noted in
    `source.left_out`.

    Read are `examples.jsonl` in the directory or in its `data/`, with the pictures by stem in `images/` beside it or in
    the other of the two; else every parquet file in the directory.

    Raises:
        DataError: there is no known layout, or no usable item.
        HubError: the hub dataset was to be fetched and could not be.
    """
    directory = COPY.directory(source)
    examples = examples_in(directory)
    names, faulty = first_usable(examples, (n + 1) // 2, seed, DATASET, lambda name: examples[name].fault())
    source.left_out.update({f"winoground-{name}-{side}": r for name, r in faulty.items() for side in (0, 1)})
    if n > 0 and not names:
        example = next((f", for example winoground-{name}: {reason}" for name, reason in faulty.items()), "")
        raise DataError(f"{directory}: none of its {len(examples)} items can be used{example}; fetch the files again")
    return [sample for name in names for sample in _sides(name, examples[name])][:n]


def examples_in(directory: Path) -> dict[str, Example]:
    """Every item that the dataset in a directory knows, by its id, usable or not.

    Raises:
        DataError: the directory has no known layout, its images are still packed, or a file cannot be read.
    """
    folders = (directory / "data", directory)
    lists = [path for folder in folders if (path := folder / "examples.jsonl").is_file()]
    images = [path for folder in folders if (path := folder / "images").is_dir()]
    if lists and images:
        return _listed(lists[0], _by_stem(images[0]))
    files = parquet_files(directory)
    if files:
        return _tables(files)
    packed = [path for folder in folders if (path := folder / "images.zip").is_file()]
    if packed:
        raise DataError(f"{packed[0]} is still packed: unzip it there, so that {packed[0].parent / 'images'} exists")
    if lists:
        raise DataError(f"{lists[0]} has no pictures: put the folder images/ with them beside it")
    raise DataError(
        f"{directory} holds no Winoground: looked for examples.jsonl and images/, in it or in its data/, and for "
        "parquet files; give the directory of the dataset"
    )


def _by_stem(folder: Path) -> dict[str, Path]:
    """The image files of a folder, each under its stem and under its whole name."""
    found = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES]
    found.sort(key=lambda path: SUFFIXES.index(path.suffix.lower()), reverse=True)
    return {path.stem: path for path in found} | {path.name: path for path in found}


@dataclass(frozen=True, slots=True)
class Absent:
    """A picture that no file of the images' folder is called after."""

    name: str

    def read_bytes(self) -> bytes:
        """Raises FileNotFoundError."""
        raise FileNotFoundError(self.name)


def _listed(path: Path, images: Mapping[str, Path]) -> dict[str, Example]:
    # Only what the folder lists is opened, so no name in the file leads out of it.
    examples: dict[str, Example] = {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): fetch the file again") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            zero, one = (images.get(stem) or Absent(f"image {stem}") for stem in _texts(values, IMAGE_COLUMNS))
            _add(examples, values, (zero, one))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            said = shown(str(error), _LONGEST)
            raise DataError(
                f"{path} line {number} is no example of Winoground ({type(error).__name__}: {said}), which has "
                f"{', '.join(TEXT_COLUMNS + IMAGE_COLUMNS)}: fetch the file again"
            ) from None
    return examples


def _tables(files: list[Path]) -> dict[str, Example]:
    examples: dict[str, Example] = {}
    for path in files:
        found = column_names(path)
        if not {*TEXT_COLUMNS, *IMAGE_COLUMNS} <= set(found):
            raise DataError(
                f"{path} has the columns {', '.join(found)}; Winoground is recognised by "
                f"{', '.join(TEXT_COLUMNS + IMAGE_COLUMNS)}: take other parquet files out of the directory"
            )
        for group, row, values in rows(path, TEXT_COLUMNS):
            zero, one = (Cell(path, group, row, column) for column in IMAGE_COLUMNS)
            try:
                _add(examples, values, (zero, one))
            except (ValueError, TypeError) as error:
                raise DataError(f"{path} row {row} of row group {group}: {error}; fetch the file again") from None
    return examples


def _add(examples: dict[str, Example], values: Mapping[str, Any], places: tuple[Place, Place]) -> None:
    name = item_name(values["id"])
    if name in examples:
        raise ValueError(f"id {name} occurs twice")
    zero, one = _texts(values, ("caption_0", "caption_1"))
    examples[name] = Example(places, (zero, one))


def _texts(values: Mapping[str, Any], columns: tuple[str, ...]) -> list[str]:
    for column in columns:
        if not isinstance(values[column], str):
            raise TypeError(f"{column} is {shown(repr(values[column]), _LONGEST)}, no text")
    return [values[column] for column in columns]


def _sides(name: str, example: Example) -> list[Sample]:
    cluster = f"winoground-{name}"
    return [
        Sample(f"{cluster}-{side}", partial(photograph, place), INSTRUCTION, tidy_captions([text]), cluster)
        for side, (place, text) in enumerate(zip(example.places, example.captions, strict=True))
    ]
