"""Winoground (Thrush et al. 2022): two photographs and two captions with the same words, from files or parquet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness.data import selection
from harness.data.image_folder import Absent, ImageFolder, same_content
from harness.data.local_copy import Files, LocalCopy, read_json_text
from harness.data.parquet import ImageCell, column_names, parquet_files
from harness.data.photograph import EncodedImage, decode_image, find_fault
from harness.data.sample import DataError, Sample, Source, quote

DATASET = "winoground"
INSTRUCTION = "Describe the image."
VARIABLE = "VLM_PHASE_WINOGROUND"
#: File names of the list, in order of preference. Either may contain one example per line or a JSON list.
LISTS: tuple[str, ...] = ("examples.jsonl", "examples.json")
TEXT_COLUMNS: tuple[str, ...] = ("id", "caption_0", "caption_1")
IMAGE_COLUMNS: tuple[str, ...] = ("image_0", "image_1")
COPY = LocalCopy(
    DATASET,
    "facebook/winoground",
    ("data/*.parquet",),
    f"give the directory with examples.jsonl and the images with [[data {DATASET}=DIR]] (or the variable "
    f"{VARIABLE}), or, as the dataset is gated, accept the licence on its page at the hub, set an access token "
    "(HF_TOKEN) and add [[download True]]",
    lambda directory: _files(directory),
    lambda path: _columns(path),
)


_MOST_ENTRIES = 100  # with the same id


@dataclass(frozen=True, slots=True)
class Example:
    """An item: its two images and their captions; caption k describes image k.

    `origin` is its location in the dataset. An image name or caption that is not text is None. `flaw` is the reason
    why an entry is not an example.
    """

    origin: str
    files: tuple[EncodedImage | None, EncodedImage | None]
    captions: tuple[str | None, str | None]
    flaw: str = ""

    def find_fault(self) -> str | None:
        """Return why the item cannot be used, for both sides, or None if it can."""
        if self.flaw:
            return self.flaw
        reasons = [
            f"image_{side} is not a file name" if image is None else find_fault(image)
            for side, image in enumerate(self.files)
        ]
        for side, text in enumerate(self.captions):
            if text is None or not selection.tidy_captions([text]):
                reasons.append(f"caption_{side} is {'not text' if text is None else 'empty'}")
            elif reason := selection.find_captions_fault([text]):
                reasons.append(f"caption_{side}: {reason}")
        if not any(reasons):
            # No model can distinguish such sides, and a tie counts against the model.
            if selection.tidy_captions(self.captions[:1]) == selection.tidy_captions(self.captions[1:]):
                reasons.append("caption_0 and caption_1 are the same")
            if same_content([image for image in self.files if image is not None]):
                reasons.append("image_0 and image_1 are the same image")
        return "; ".join(reason for reason in reasons if reason) or None

    def is_repeated_by(self, other: Example) -> bool:
        """Return True if another example has the same captions and images."""
        if self.captions != other.captions:
            return False
        pairs = zip(self.files, other.files, strict=True)
        return all(ours == theirs or (ours and theirs and same_content((ours, theirs))) for ours, theirs in pairs)


def winoground(n: int, seed: int, source: Source) -> list[Sample]:
    """Return n samples, two per item: samples 2j and 2j + 1 are the sides 0 and 1 of one item and share its cluster.

    The cluster is `winoground-` and the item's id; the sample's id adds "-0" or "-1". An odd n ends with the first side
    of its last item. Fewer samples are returned if no more items are usable. The first m are the same for every
    n >= m. If an image of an item is missing or broken, or different items have its id, both sides are excluded and
    recorded in `source.left_out`.

    The list is `examples.jsonl` or `examples.json` in the directory or in its `data/`; either directory may contain
    `images/`. Without a list and images, every parquet file in the directory is read.

    Raises:
        DataError: there is no known layout, or no usable item.
        HubError: the hub dataset could not be downloaded.
    """
    directory = COPY.directory(source)
    examples = _examples_in(directory)
    # A table of a few kilobytes may contain millions of broken images, so the number of attempts is limited.
    tables = any(isinstance(image, ImageCell) for group in examples.values() for image in group[0].files)
    most = 5 * n + 100 if tables else None
    names, faulty = selection.first_usable(
        examples, (n + 1) // 2, seed, DATASET, lambda name: _fault(examples[name]), most
    )
    source.left_out.update({f"winoground-{name}-{side}": r for name, r in faulty.items() for side in (0, 1)})
    if n > 0 and not names:
        raise DataError(selection.none_usable(directory, len(examples), "items", faulty, DATASET))
    return [sample for name in names for sample in _sides(name, examples[name][0])][:n]


def _fault(examples: Sequence[Example]) -> str | None:
    if len(examples) > _MOST_ENTRIES:
        return f"{len(examples):,} entries have this id; give each item its own id"
    first, *others = examples
    other = next((other for other in others if not first.is_repeated_by(other)), None)
    if other is not None:
        return f"{first.origin} and {other.origin} differ and have this id; give each item its own id"
    return first.find_fault()


def _examples_in(directory: Path) -> dict[str, list[Example]]:
    """Return the examples of every item of the dataset in a directory by id, usable or not."""
    files = COPY.files(directory)
    examples: dict[str, list[Example]] = {}
    if isinstance(files, list):
        faulty = COPY.read_tables(files, partial(_add, examples))
    else:
        path, images = files
        faulty = _read_list(examples, path, ImageFolder(images, directory))
    # An entry that is not an example is counted and reported as an unusable item.
    flawed = {origin: Example(origin, (None, None), (None, None), reason) for origin, reason in faulty.items()}
    return examples | {origin: [example] for origin, example in flawed.items()}


def _files(directory: Path) -> Files:
    folders = (directory / "data", directory)
    lists = [path for name in LISTS for folder in folders if (path := folder / name).exists()]
    images = [path for folder in folders if (path := folder / "images").is_dir()]
    if lists and images:
        return lists[0], images[0]
    files = parquet_files(directory)
    if files:
        return files
    packed = [path for folder in folders if (path := folder / "images.zip").is_file()]
    if packed:
        raise DataError(f"{packed[0]} is still packed: unzip it there, so that {packed[0].parent / 'images'} exists")
    if lists:
        raise DataError(f"{lists[0]} has no images: put the folder images/ beside it")
    raise DataError(
        f"{directory} contains no Winoground: expected examples.jsonl and images/, in it or in its data/, or "
        "parquet files; give the directory of the dataset"
    )


def _read_list(examples: dict[str, list[Example]], path: Path, images: ImageFolder) -> dict[str, str]:
    faulty: dict[str, Exception] = {}
    for origin, values in _entries(path):
        try:
            _add(examples, values, origin, partial(_picture, images, values))
        except (ValueError, KeyError, TypeError) as error:
            faulty[origin] = error
    if faulty and not examples:
        raise _no_example(path, *next(iter(faulty.items())))
    return {origin: selection.entry_problem(error) for origin, error in faulty.items()}


def _entries(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the origin and content of each entry of a list: one per line, or all in a JSON list."""
    try:
        text = read_json_text(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read ({reason}): download the file again") from None
    numbered = [(f"line {number}", line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    is_list = False
    if numbered and numbered[0][1].lstrip().startswith("["):
        numbered, is_list = [("line 1", text)], True
    for origin, line in numbered:
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _no_example(path, origin, error) from None
        if is_list:
            yield from ((f"entry {number}", entry) for number, entry in enumerate(values, start=1))
        else:
            yield origin, values


def _no_example(path: Path, origin: str, error: Exception) -> DataError:
    return DataError(
        f"{path} {origin} is not a Winoground example ({type(error).__name__}: {quote(error)}), which "
        f"has {', '.join(TEXT_COLUMNS + IMAGE_COLUMNS)}: download the file again"
    )


def _picture(images: ImageFolder, values: Any, column: str) -> EncodedImage | None:
    name = values[column]
    if not isinstance(name, str):
        return None
    image = images.find(name)
    return Absent(f"image {image.name}", f"image {image.reason}") if isinstance(image, Absent) else image


def _columns(path: Path) -> tuple[str, ...]:
    columns = column_names(path)
    if not {*TEXT_COLUMNS, *IMAGE_COLUMNS} <= set(columns):
        raise DataError(
            f"{path} has the columns {quote(', '.join(columns))}; a Winoground file has "
            f"{', '.join(TEXT_COLUMNS + IMAGE_COLUMNS)}: move other parquet files out of the directory"
        )
    return TEXT_COLUMNS


def _add(
    examples: dict[str, list[Example]],
    values: Mapping[str, Any],
    origin: str,
    picture: Callable[[str], EncodedImage | None],
) -> None:
    left, right = map(picture, IMAGE_COLUMNS)
    first, second = (
        selection.shortened(text) if isinstance(text := values[f"caption_{side}"], str) else None for side in (0, 1)
    )
    examples.setdefault(selection.item_name(values["id"]), []).append(Example(origin, (left, right), (first, second)))


def _sides(name: str, example: Example) -> list[Sample]:
    cluster = f"winoground-{name}"
    return [
        Sample(
            f"{cluster}-{side}",
            partial(decode_image, image),
            INSTRUCTION,
            selection.tidy_captions([text]),
            cluster,
        )
        for side, (image, text) in enumerate(zip(example.files, example.captions, strict=True))
        if image is not None
    ]
