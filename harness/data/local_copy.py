"""The local copy of a dataset: the user's directory, or a snapshot in the hub's local cache."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness.data.parquet import NEEDS_PYARROW, ImageCell, TableSize, has_pyarrow, read_rows
from harness.data.sample import DataError, Source
from harness.interface import expand_options
from harness.storage.regular_file import read_regular

#: A list file with its folder of images, or parquet tables.
Files = tuple[Path, Path] | list[Path]
#: Called with a row's values by column, the row's location, and a function that returns the image cell of a column.
AddRow = Callable[[Mapping[str, Any], str, Callable[[str], ImageCell]], None]


#: Limits of a list file; the largest of COCO Captions has 92 MB and 3 million values.
MOST_BYTES, MOST_VALUES = 1_000_000_000, 50_000_000


@dataclass(frozen=True, slots=True)
class LocalCopy:
    """The sources of a dataset's files.

    Attributes:
        dataset: the name of the dataset.
        repository: the hub dataset.
        patterns: shell patterns of its parquet files.
        remedy: advice for a user who has no copy; options as in `interface.expand_options`.
        files: returns the files in a directory; raises DataError if the layout is unknown.
        columns: returns the columns to read of a table; raises DataError if it belongs to another dataset.
    """

    dataset: str
    repository: str
    patterns: tuple[str, ...]
    remedy: str
    files: Callable[[Path], Files]
    columns: Callable[[Path], Sequence[str]]

    def directory(self, source: Source) -> Path:
        """Return the directory with the files: the source's, or the cached snapshot, downloaded first if requested.

        Raises:
            DataError: the source's directory does not exist or has no known layout, there is no copy, or pyarrow is
                missing.
            HubError: the snapshot cannot be downloaded.
        """
        from harness.hub import find_snapshot

        reason = self.unavailable(source)
        if reason is not None:
            raise DataError(reason)
        if source.directory is not None:
            return source.directory.expanduser()
        return find_snapshot(self.repository, "dataset", self.patterns, download=source.download).path

    def unavailable(self, source: Source) -> str | None:
        """Return why the dataset cannot be read, with the remedy in one sentence, or None if it can.

        Only names and columns of a directory are checked. Uses no network and opens no images.
        """
        from harness.hub import cache_problem

        if source.directory is not None:
            return self._problem(source.directory.expanduser())
        if not source.download and cache_problem(self.repository, "dataset", self.patterns) is not None:
            return (
                f"no directory was given and {self.repository} is not in the local cache, or incomplete: "
                f"{expand_options(self.remedy)}"
            )
        if not has_pyarrow():
            return f"{self.repository} cannot be read: {NEEDS_PYARROW}"
        return None

    def _problem(self, directory: Path) -> str | None:
        try:
            if not directory.is_dir():
                return f"{directory}, the path for {self.dataset}, is not a directory: {expand_options(self.remedy)}"
            files = self.files(directory)
            for path in files if isinstance(files, list) else ():
                self.columns(path)
        except DataError as error:
            return str(error)
        except OSError as error:
            return f"{directory} cannot be read ({error.strerror}): check its permissions"
        return None

    def read_tables(self, files: Sequence[Path], add: AddRow) -> dict[str, str]:
        """Add every usable row of some tables; return the reason for each unusable row by its location.

        Args:
            files: the tables.
            add: adds a row; raises ValueError if the row cannot be used.

        Raises:
            DataError: a table cannot be read, or no row can be used.
        """
        faulty: dict[str, str] = {}
        count, amount = 0, TableSize()
        for path in files:
            columns = self.columns(path)
            for group, row, values in read_rows(path, columns, amount):
                origin = f"{path.name} row {row} of row group {group}"
                count += 1
                try:
                    add({name: values[name] for name in columns}, origin, partial(ImageCell, path, group, row))
                except ValueError as error:
                    faulty[origin] = str(error)
        if faulty and len(faulty) == count:
            origin, reason = next(iter(faulty.items()))
            raise DataError(f"{files[0].parent / origin}: {reason}, and all other rows fail: download the files again")
        return faulty


def read_json_text(path: Path) -> str:
    """Return the text of a file with one JSON document, or one per line, in any encoding that JSON allows.

    Raises:
        OSError: the file does not exist or is not a regular file of bounded size; `strerror` is the reason.
        ValueError: it is not text, or has too many values for the memory. The 3 bytes `[],` take 70 bytes as objects.
    """
    content = read_regular(path, MOST_BYTES)
    values = sum(content.count(sign) for sign in (b"[", b"{", b",", b"\n"))
    if values > MOST_VALUES:
        raise ValueError(f"it has {values:,} values or lines, more than the limit of {MOST_VALUES:,}")
    return content.decode(json.detect_encoding(content), "surrogatepass")
