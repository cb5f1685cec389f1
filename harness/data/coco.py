"""COCO Captions (Chen et al. 2015): photographs with about five captions each, from the official files or parquet."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from harness.data import selection
from harness.data.image_folder import ImageFolder, same_content
from harness.data.local_copy import Files, LocalCopy, read_json_text
from harness.data.parquet import ImageCell, column_names, parquet_files
from harness.data.photograph import EncodedImage, decode_image, find_fault
from harness.data.sample import DataError, Sample, Source, quote

DATASET = "coco-captions"
INSTRUCTION = "Describe the image."
VARIABLE = "VLM_PHASE_COCO"
#: The parts of the official release, in order of preference.
PARTS: tuple[str, ...] = ("val2017", "val2014", "train2017", "train2014")
COPY = LocalCopy(
    DATASET,
    "lmms-lab/COCO-Caption",
    ("data/val-*.parquet",),
    f"give the official layout with [[data {DATASET}=DIR]] (or the variable {VARIABLE}), "
    "or add [[download True]], 6.6 GB",
    lambda directory: _files(directory),
    lambda path: _columns(path),
)


_MOST_PICTURES = 100  # with the same id: tables with a row for each caption repeat the image
_DEEPEST = 8  # levels of lists around a caption


@dataclass(slots=True)
class Photo:
    """An image of the dataset: its files, the folder that contains them, and its raw captions.

    Several files are usable if they have the same content. `flaw` is the reason why there is no file. A caption that is
    not text is None.
    """

    folder: ImageFolder | None = None
    files: list[str | ImageCell] = field(default_factory=list)
    captions: list[str | None] = field(default_factory=list)
    flaw: str = ""

    def find_files(self) -> list[EncodedImage]:
        """Return its existing files, each once."""
        files = (self.folder.find(file) if self.folder and isinstance(file, str) else file for file in self.files)
        return list(dict.fromkeys(file for file in files if not isinstance(file, str)))

    def find_fault(self) -> str | None:
        """Return why the image cannot be used, or None if it can."""
        if reason := selection.find_captions_fault(self.captions):
            return reason
        if len(self.files) > _MOST_PICTURES:
            return f"{len(self.files):,} images have this id; give each image its own id"
        files = self.find_files()
        if self.flaw or not files:
            return self.flaw or "the dataset names no file for it"
        if len(files) > 1 and not same_content(files):
            names = " and ".join(file.name for file in files[:2])
            rest = f" and {len(files) - 2} more" if len(files) > 2 else ""
            return f"several images have this id: {names}{rest}; give each image its own id"
        return find_fault(files[0])


_IMAGE = "image"
#: Id columns, in order of preference, by caption column. `answer` tables have a row per image with a list of captions,
#: `sentences` tables a row per caption.
KNOWN_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "answer": ("file_name", "id", "question_id"),
    "sentences": ("cocoid", "filename", "imgid"),
}


def coco_captions(n: int, seed: int, source: Source) -> list[Sample]:
    """Return n photographs with their captions, or fewer if no more are usable.

    The first m samples are the same for every n >= m. Two layouts are read. The official layout has
    `annotations/captions_PART.json` and a folder `PART` of images. PART is the first of val2017, val2014, train2017 and
    train2014 for which both exist. Otherwise every parquet file in the directory is read, with the columns of
    lmms-lab/COCO-Caption or HuggingFaceM4/COCO; rows of the same image are merged. Ids are `coco-` and the number of
    the image. `source.left_out` gets the reason for each image that is missing, broken, without captions, or whose id
    belongs to different images.

    Raises:
        DataError: there is no known layout, or no usable image.
        HubError: the hub dataset could not be downloaded.
    """
    directory = COPY.directory(source)
    photos = _photos_in(directory)

    # A table of a few kilobytes may contain millions of broken images, so the number of attempts is limited.
    tables = any(isinstance(file, ImageCell) for photo in photos.values() for file in photo.files)
    most = 10 * n + 100 if tables else None
    names, faulty = selection.first_usable(photos, n, seed, DATASET, lambda name: photos[name].find_fault(), most)
    source.left_out.update({f"coco-{name}": reason for name, reason in faulty.items()})
    if n > 0 and not names:
        raise DataError(selection.none_usable(directory, len(photos), "images", faulty, "coco"))
    return [_sample(name, photos[name]) for name in names]


def _photos_in(directory: Path) -> dict[str, Photo]:
    """Return every image of the dataset in a directory by its number, usable or not."""
    files = COPY.files(directory)
    photos: dict[str, Photo] = {}
    if isinstance(files, list):
        faulty = COPY.read_tables(files, partial(_add_row, photos))
    else:
        annotations, images = files
        faulty = _read_annotations(photos, annotations, ImageFolder(images, directory))
    # An entry without an id is counted and reported as an unusable photograph.
    return photos | {name: Photo(captions=[name], flaw=reason) for name, reason in faulty.items()}


def _files(directory: Path) -> Files:
    annotated = [part for part in PARTS if _annotations(directory, part).exists()]
    for part in annotated:
        for folder in (directory / part, directory / "images" / part):
            if folder.is_dir():
                return _annotations(directory, part), folder
    files = parquet_files(directory)
    if files:
        return files
    if annotated:
        folders = " or ".join(str(directory / part) for part in annotated)
        hint = _lying(path for part in annotated for path in (directory.parent / part, *directory.glob(f"*/*/{part}")))
        raise DataError(f"{directory} has captions but no images: unpack the images of that part into {folders}{hint}")
    near = (path.parent for path in (directory, *directory.glob("*/annotations"), *directory.glob("*/*/annotations")))
    hint = _lying(path for path in near for part in PARTS if _annotations(path, part).is_file())
    raise DataError(
        f"{directory} contains no COCO Captions: expected annotations/captions_PART.json with a folder PART of images "
        f"(PART one of {', '.join(PARTS)}) or parquet files; give the directory that contains annotations/{hint}"
    )


def _lying(paths: Iterable[Path]) -> str:
    """Return the end of a message that names the first existing directory; empty if none exists."""
    return next((f": there is {path}" for path in paths if path.is_dir()), "")


def _annotations(directory: Path, part: str) -> Path:
    return directory / "annotations" / f"captions_{part}.json"


def _read_annotations(photos: dict[str, Photo], annotations: Path, folder: ImageFolder) -> dict[str, str]:
    try:
        content = json.loads(read_json_text(annotations))
        unknown = f"{annotations.name} names no file for it"
        return _unreadable(content, "images", lambda image: _add_image(photos, folder, image)) | _unreadable(
            content, "annotations", lambda note: _add_note(photos, unknown, note)
        )
    except OSError as error:
        raise DataError(
            f"{annotations} cannot be read ({error.strerror}): check the file or download it again"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{annotations} is not a COCO captions file ({type(error).__name__}: {quote(error)}), "
            "which has images with id and file_name, and annotations with image_id and caption: unpack the "
            "annotations again"
        ) from None


def _unreadable(content: Any, key: str, add: Callable[[Any], None]) -> dict[str, str]:
    """Add each entry of a list and return the reason for each unreadable entry; if all are, raise the last error."""
    reasons: dict[str, str] = {}
    for index, entry in enumerate(content[key]):
        try:
            add(entry)
        except (KeyError, TypeError, ValueError) as error:
            reasons[f"{key}[{index}]"] = selection.entry_problem(error)
            if len(reasons) == len(content[key]):
                raise
    return reasons


def _add_image(photos: dict[str, Photo], folder: ImageFolder, image: Any) -> None:
    name, file = selection.item_name(image["id"]), image["file_name"]
    photo = photos.setdefault(name, Photo(folder))
    flaw = folder.refusal(file) if isinstance(file, str) else f"its file name is {quote(repr(file))}"
    photo.flaw = photo.flaw or flaw
    if not flaw and file not in photo.files:
        photo.files.append(file)


def _add_note(photos: dict[str, Photo], unknown: str, note: Any) -> None:
    name, caption = selection.item_name(note["image_id"]), note["caption"]
    photos.setdefault(name, Photo(flaw=unknown)).captions.extend(_texts(caption))


def _add_row(photos: dict[str, Photo], values: Mapping[str, Any], _: str, cell: Callable[[str], ImageCell]) -> None:
    (column, value), (_, captions) = values.items()
    try:
        name = _number(value)
    except ValueError as error:
        raise ValueError(f"the row has no {column} ({error})") from None
    photo = photos.setdefault(name, Photo())
    photo.files.append(cell(_IMAGE))
    photo.captions.extend(_texts(captions))


def _columns(path: Path) -> tuple[str, str]:
    names = column_names(path)
    for captions, ids in KNOWN_COLUMNS.items():
        column = next((name for name in ids if name in names), None)
        if column and {_IMAGE, captions} <= {*names}:
            return column, captions
    wanted = ", or ".join(f"{_IMAGE}, {text} and one of {'/'.join(ids)}" for text, ids in KNOWN_COLUMNS.items())
    raise DataError(
        f"{path} has the columns {quote(', '.join(names))}; COCO captions need {wanted}: "
        "move other parquet files out of the directory"
    )


def _number(value: Any) -> str:
    """Return an image's number, from its id or its file name ("COCO_val2014_000000000042.jpg" is 42)."""
    stem = PurePosixPath(selection.item_name(value)).stem
    # Other names, such as hexadecimal names, may end in the same digits.
    digits = re.fullmatch(r"(?:COCO_\w+_)?([0-9]+)", stem)
    return str(int(digits[1])) if digits else selection.item_name(stem)


def _texts(value: Any, depth: int = _DEEPEST) -> list[str | None]:
    """Return the captions in a cell: text, a structure with the field `raw`, or a list of these; else None."""
    if isinstance(value, list) and depth:
        return [text for entry in value for text in _texts(entry, depth - 1)]
    if isinstance(value, dict):
        value = value.get("raw")
    return [selection.shortened(value) if isinstance(value, str) else None]


def _sample(name: str, photo: Photo) -> Sample:
    file = photo.find_files()[0]
    return Sample(
        f"coco-{name}",
        partial(decode_image, file),
        INSTRUCTION,
        selection.tidy_captions(photo.captions),
        f"coco-{name}",
    )
