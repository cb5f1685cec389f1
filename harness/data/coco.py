"""COCO Captions (Chen et al. 2015): photographs with about five captions each, from the official files or parquet."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from harness.data.local_copy import LocalCopy
from harness.data.parquet import Cell, column_names, parquet_files, rows
from harness.data.photograph import Place, fault, photograph
from harness.data.sample import DataError, Sample, Source
from harness.data.selection import first_usable, item_name, tidy_captions
from harness.errors import shown

DATASET = "coco-captions"
INSTRUCTION = "Describe the image."
VARIABLE = "VLM_PHASE_COCO"
#: The parts of the official release, the first to be used in front.
PARTS: tuple[str, ...] = ("val2017", "val2014", "train2017", "train2014")
COPY = LocalCopy(
    DATASET,
    "lmms-lab/COCO-Caption",
    ("data/val-*.parquet",),
    f"give the official layout with --phase-data {DATASET}=DIR (or the variable {VARIABLE}), "
    "or add --phase-download, 6.6 GB",
)


_LONGEST = 200  # characters of what is quoted from a file


@dataclass(frozen=True, slots=True)
class Photo:
    """What the dataset knows of one image: where it lies, or why that cannot be said, and its captions as written."""

    place: Place | None
    flaw: str = ""
    captions: list[str | None] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Columns:
    """How one hub dataset names its columns; the first of `ids` that a file has is used."""

    image: str
    captions: str
    ids: tuple[str, ...]

    def id_in(self, names: Sequence[str]) -> str | None:
        """The id column among the names, or None where the names are not of this dataset."""
        if self.image not in names or self.captions not in names:
            return None
        return next((name for name in self.ids if name in names), None)


#: One row per image with a list of captions, and one row per caption.
KNOWN_COLUMNS: tuple[Columns, ...] = (
    Columns("image", "answer", ("file_name", "id", "question_id")),
    Columns("image", "sentences", ("cocoid", "filename", "imgid")),
)


def coco_captions(n: int, seed: int, source: Source) -> list[Sample]:
    """Return n photographs with their captions, fewer where no more are usable; the first m for every n >= m.

    Two layouts are read. The official one: `annotations/captions_PART.json` and the folder `PART` of images, PART being
    the first of val2017, val2014, train2017 and train2014 for which the directory has both. Else every parquet
    file in the directory, with the columns of lmms-lab/COCO-Caption or HuggingFaceM4/COCO; the rows of one image are
    brought together. Ids are `coco-` and the number of the image. An image that is missing, broken or without
    captions is noted in `source.left_out`.

    Raises:
        DataError: there is no known layout, or no usable image.
        HubError: the hub dataset was to be fetched and could not be.
    """
    directory = COPY.directory(source)
    photos = photos_in(directory)

    def flaw_of(name: str) -> str | None:
        photo = photos[name]
        if not tidy_captions(photo.captions):
            return "no captions"
        return photo.flaw if photo.place is None else fault(photo.place)

    names, faulty = first_usable(photos, n, seed, DATASET, flaw_of)
    source.left_out.update({f"coco-{name}": reason for name, reason in faulty.items()})
    if n > 0 and not names:
        example = next((f", for example coco-{name}: {reason}" for name, reason in faulty.items()), "")
        raise DataError(f"{directory}: none of its {len(photos)} images can be used{example}; fetch the files again")
    return [_sample(name, photos[name]) for name in names]


def photos_in(directory: Path) -> dict[str, Photo]:
    """Every image that the dataset in a directory knows, by its number, usable or not.

    Raises:
        DataError: the directory has no known layout, or a file of it cannot be read.
    """
    annotated = [part for part in PARTS if _annotations(directory, part).is_file()]
    for part in annotated:
        if (directory / part).is_dir():
            return _official(_annotations(directory, part), directory / part)
    files = parquet_files(directory)
    if files:
        return _tables(files)
    if annotated:
        folders = " or ".join(str(directory / part) for part in annotated)
        raise DataError(f"{directory} has captions but no images: unpack the images of that part into {folders}")
    raise DataError(
        f"{directory} holds no COCO Captions: looked for annotations/captions_PART.json with the folder PART of images "
        f"(PART one of {', '.join(PARTS)}) and for parquet files; give the directory that holds annotations/"
    )


def _annotations(directory: Path, part: str) -> Path:
    return directory / "annotations" / f"captions_{part}.json"


def _official(annotations: Path, folder: Path) -> dict[str, Photo]:
    try:
        content = json.loads(annotations.read_bytes())
        photos = {item_name(image["id"]): _photo(folder, image["file_name"]) for image in content["images"]}
        for note in content["annotations"]:
            unknown = Photo(None, f"{annotations.name} names no file for it")
            photos.setdefault(item_name(note["image_id"]), unknown).captions.append(_text(note["caption"]))
    except OSError as error:
        raise DataError(f"{annotations} cannot be read ({error.strerror}): check the file") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{annotations} is no file of COCO captions ({type(error).__name__}: {shown(str(error), _LONGEST)}), "
            "which has images with id and file_name, annotations with image_id and caption: unpack the annotations "
            "again"
        ) from None
    return photos


def _photo(folder: Path, name: str) -> Photo:
    # Windows' rules know both slashes and drive letters, so the check is the same on every machine.
    pure = PureWindowsPath(_text(name))
    if pure.drive or pure.root or ".." in pure.parts or not pure.parts:
        return Photo(None, f"the file name {shown(repr(name), _LONGEST)} does not stay in {folder.name}/")
    return Photo(folder / name)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _tables(files: Sequence[Path]) -> dict[str, Photo]:
    photos: dict[str, Photo] = {}
    for path in files:
        columns, id_column = _recognised(path)
        for group, row, values in rows(path, (id_column, columns.captions)):
            try:
                name = _number(values[id_column])
            except ValueError as error:
                raise DataError(
                    f"{path}: row {row} of row group {group} has no {id_column} ({error}): fetch the file again"
                ) from None
            photo = photos.setdefault(name, Photo(Cell(path, group, row, columns.image)))
            photo.captions.extend(_texts(values[columns.captions]))
    return photos


def _recognised(path: Path) -> tuple[Columns, str]:
    found = column_names(path)
    for columns in KNOWN_COLUMNS:
        id_column = columns.id_in(found)
        if id_column is not None:
            return columns, id_column
    wanted = ", or ".join(f"{c.image}, {c.captions} and one of {'/'.join(c.ids)}" for c in KNOWN_COLUMNS)
    raise DataError(
        f"{path} has the columns {', '.join(found)}; COCO captions are recognised by {wanted}: "
        "take other parquet files out of the directory"
    )


def _number(value: Any) -> str:
    """The number of an image, from an id or from the end of its file's name ("COCO_val2014_000000000042.jpg" is 42)."""
    stem = PurePosixPath(item_name(value)).stem
    digits = re.search(r"[0-9]+$", stem)
    return str(int(digits[0])) if digits else item_name(stem)


def _texts(value: Any) -> list[str | None]:
    """The captions in a cell: a text, a structure with the field `raw`, or a list of either."""
    if isinstance(value, list):
        return [text for entry in value for text in _texts(entry)]
    if isinstance(value, dict):
        value = value.get("raw")
    return [value] if isinstance(value, str) else []


def _sample(name: str, photo: Photo) -> Sample:
    assert photo.place is not None
    return Sample(
        f"coco-{name}", partial(photograph, photo.place), INSTRUCTION, tidy_captions(photo.captions), f"coco-{name}"
    )
