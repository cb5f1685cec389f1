"""Lookup of a list's file names in a folder of images, also if folders or case differ."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePath, PureWindowsPath
from urllib.parse import unquote

from harness.data.photograph import EncodedImage, read_encoded
from harness.data.sample import DataError, quote
from harness.storage.file_names import stays_inside

#: Suffixes that a name without a suffix may stand for, in order of preference.
SUFFIXES: tuple[str, ...] = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_DEEPEST = 3  # levels of folders that are searched
_NAMED = 2


@dataclass(frozen=True, slots=True)
class Absent:
    """An image without a file, and the reason."""

    name: str
    reason: str

    def read_bytes(self) -> bytes:
        """Raise DataError with the reason."""
        raise DataError(self.reason)


@dataclass(frozen=True)
class ImageFolder:
    """The images in a folder and its subfolders.

    Attributes:
        folder: the folder that is searched.
        root: the dataset's directory. File names may be relative to it, and messages name misplaced files in it.
    """

    folder: Path
    root: Path
    _placed: dict[str, EncodedImage] = field(default_factory=dict, compare=False, repr=False)

    def find(self, name: str) -> EncodedImage:
        """Return the file for a name, or an `Absent` with the searched folder and similar files.

        The name is tried as written, then relative to the dataset, then without the folders that lead to this one
        (from another machine or a URL). Last, subfolders are searched, ignoring case, Unicode form and URL escapes. An
        ambiguous name is absent. No name leads out of the dataset.
        """
        if name not in self._placed:
            self._placed[name] = self._found(name)
        return self._placed[name]

    def refusal(self, name: str) -> str:
        """Return why a name cannot belong to a file in the folder; empty if it can."""
        parts = PureWindowsPath(name).parts
        if ".." in parts or (self._without_leading(parts) == parts and not stays_inside(name)):
            return f"the file name {quote(repr(name))} leads out of {self.folder.name}/"
        return ""

    def _found(self, name: str) -> EncodedImage:
        named = quote(name)
        if self.refusal(name):
            return Absent(named, f"{named} is missing in {self.folder.name}/")
        pure = PureWindowsPath(name)
        inner = self._without_leading(pure.parts)
        parts = inner if pure.drive or pure.root else pure.parts
        tops = (self.folder, self.root) if len(parts) > 1 else (self.folder,)
        for path in (*(top.joinpath(*parts) for top in tops), self.folder.joinpath(*inner)):
            if _exists(path):
                return path
        matches = self._matches(self._below, inner)
        if len(matches) == 1:
            return matches[0]
        if matches:
            several = " or ".join(self._shown(path) for path in matches[:_NAMED])
            return Absent(named, f"{named} may be {several}: give one of them in full")
        hint = ""
        if elsewhere := self._matches(self._in_root, inner[-1:]):
            hint = f", a file with that name is in {self._shown(elsewhere[0].parent)}/"
        elif similar := self._matches(self._in_root, (PurePath(inner[-1]).stem,)):
            hint = f", {quote(similar[0].name)} is in {self._shown(similar[0].parent)}/"
        return Absent(named, f"{named} is missing in {self.folder.name}/{hint}")

    def _without_leading(self, parts: tuple[str, ...]) -> tuple[str, ...]:
        """Return the parts after the name of this folder, or all parts if it is not among them."""
        positions = [count for count, part in enumerate(parts[:-1], start=1) if _key(part) == _key(self.folder.name)]
        return parts[positions[-1] :] if positions else parts

    def _matches(self, index: dict[str, list[Path]], parts: tuple[str, ...]) -> list[Path]:
        """Return files whose paths end with the parts, ignoring case; exact matches and the best suffix win."""
        tail = [_key(part) for part in parts]
        paths = [path for path in index.get(tail[-1], []) if _folders(path, len(tail) - 1) == tail[:-1]]
        paths = [path for path in paths if parts[-1] in (path.name, path.stem)] or paths
        best = min(map(self._preference, paths), default=0)
        return [path for path in paths if self._preference(path) == best]

    def _preference(self, path: Path) -> int:
        suffix = path.suffix.lower()
        return SUFFIXES.index(suffix) if suffix in SUFFIXES else 0

    @cached_property
    def _below(self) -> dict[str, list[Path]]:
        return self._index(self.folder)

    @cached_property
    def _in_root(self) -> dict[str, list[Path]]:
        return self._index(self.root)

    def _index(self, top: Path) -> dict[str, list[Path]]:
        """Return the files below a folder by name, and images also by stem."""
        index: dict[str, list[Path]] = defaultdict(list)
        for path in _files(top):
            index[_key(path.name)].append(path)
            if path.suffix.lower() in SUFFIXES:
                index[_key(path.stem)].append(path)
        return dict(index)

    def _shown(self, path: Path) -> str:
        inside = path.relative_to(self.root) if path.is_relative_to(self.root) else path
        return quote("the dataset" if inside == Path() else inside.as_posix())


def _key(name: str) -> str:
    """Return the form in which names are compared: lower case, composed Unicode, without URL escapes."""
    return unicodedata.normalize("NFC", unquote(name)).casefold().strip()


def _folders(path: Path, count: int) -> list[str]:
    """Return the keys of the last `count` folders of a path."""
    folders = path.parent.parts
    return [_key(part) for part in folders[max(0, len(folders) - count) :]]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # The name is invalid on this file system.
        return False


def _files(top: Path) -> Iterator[Path]:
    """Yield the files in a folder and some levels below, in order, without hidden and linked folders."""
    for directory, folders, names in os.walk(top):
        here = Path(directory)
        deep = len(here.relative_to(top).parts) >= _DEEPEST
        folders[:] = [] if deep else sorted(name for name in folders if not name.startswith("."))
        yield from (here / name for name in sorted(names))


def same_content(images: Sequence[EncodedImage]) -> bool:
    """Return True if all images have the same bytes; False also if one cannot be read."""
    try:
        first, *others = (read_encoded(image) for image in images)
    except (OSError, ValueError, DataError):
        return False
    return all(content == first for content in others)
