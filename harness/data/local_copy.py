"""The copy of a dataset on this machine: the user's directory, or a snapshot in the local cache of the hub."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness.data.parquet import NEEDS_PYARROW, ImageCell, TableSize, has_pyarrow, read_rows
from harness.data.sample import DataError, Source
from harness.storage.regular_file import read_regular

#: A list with its folder of pictures, or tables.
Files = tuple[Path, Path] | list[Path]
#: Takes the values of a row by column, where the row is, and the cell of each of its columns.
AddRow = Callable[[Mapping[str, Any], str, Callable[[str], ImageCell]], None]


#: The largest list of COCO Captions has 92 MB and 3 million values.
MOST_BYTES, MOST_VALUES = 1_000_000_000, 50_000_000


@dataclass(frozen=True, slots=True)
class LocalCopy:
    """Where a dataset's files are looked for.

    `repository` is the hub dataset that holds it as parquet files matching `patterns`; `remedy` is what a user
    without any copy can do. `files` returns the files in a directory and raises DataError where it has no known layout;
    `columns` returns the columns of a table that are read and raises DataError where it is of another dataset.
    """

    dataset: str
    repository: str
    patterns: tuple[str, ...]
    remedy: str
    files: Callable[[Path], Files]
    columns: Callable[[Path], Sequence[str]]

    def directory(self, source: Source) -> Path:
        """The directory with the files: the source's own, or the snapshot in the cache, fetched first where asked for.

        Raises:
            DataError: the source's directory does not exist or has no known layout, there is no copy, or pyarrow is
                missing.
            HubError: the snapshot cannot be fetched.
        """
        from harness.hub import find_snapshot

        reason = self.unavailable(source)
        if reason is not None:
            raise DataError(reason)
        if source.directory is not None:
            return source.directory.expanduser()
        return find_snapshot(self.repository, "dataset", self.patterns, download=source.download).path

    def unavailable(self, source: Source) -> str | None:
        """Why there is nothing to read, with the remedy in one sentence, or None.

        Of a directory that was given only names and columns are looked at. Touches neither network nor images.
        """
        from harness.hub import cache_problem

        if source.directory is not None:
            return self._problem(source.directory.expanduser())
        if not source.download and cache_problem(self.repository, "dataset", self.patterns) is not None:
            where = "in the local cache, or not whole"
            return f"no directory was given and {self.repository} is not {where}: {self.remedy}"
        if not has_pyarrow():
            return f"{self.repository} is not read: {NEEDS_PYARROW}"
        return None

    def _problem(self, directory: Path) -> str | None:
        try:
            if not directory.is_dir():
                return f"{directory} is no directory: {self.dataset} is looked for there; {self.remedy}"
            files = self.files(directory)
            for path in files if isinstance(files, list) else ():
                self.columns(path)
        except DataError as error:
            return str(error)
        except OSError as error:
            return f"{directory} cannot be read ({error.strerror}): check its permissions"
        return None

    def read_tables(self, files: Sequence[Path], add: AddRow) -> dict[str, str]:
        """Add every row of some tables; return why others cannot be used, by where they are.

        Args:
            files: the tables.
            add: adds a row; raises ValueError where it cannot be used.

        Raises:
            DataError: a table cannot be read, or no row of any can be used.
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
            raise DataError(f"{files[0].parent / origin}: {reason}, as all others: fetch the files again")
        return faulty


def read_json_text(path: Path) -> str:
    """Return the text of a file that holds one JSON document, or one a line, in any encoding of JSON.

    Raises:
        OSError: there is no such file, or none that is read; `strerror` is the reason.
        ValueError: it is no text, or holds more values than fit into memory: `[],` takes 3 bytes and makes 70.
    """
    content = read_regular(path, MOST_BYTES)
    values = sum(content.count(sign) for sign in (b"[", b"{", b",", b"\n"))
    if values > MOST_VALUES:
        raise ValueError(f"it has {values:,} values or lines, more than the {MOST_VALUES:,} that are read")
    return content.decode(json.detect_encoding(content), "surrogatepass")
