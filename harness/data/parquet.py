"""Tables in parquet files: their rows without the pictures, and single pictures when they are wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.data.sample import DataError

NEEDS_PYARROW = "parquet files are read with pyarrow, which is not installed: pip install 'vlm-phase-harness[hub]'"
# Rows before the one that is wanted are passed over, so no more of them than needed are turned into arrays.
_ROWS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Cell:
    """One encoded picture in a parquet file: read when it is wanted, and nothing kept.

    `row` counts from the start of the row group. The column holds {bytes, path} or the bytes themselves. While it is
    read, the column of its row group lies in memory.
    """

    path: Path
    row_group: int
    row: int
    column: str

    @property
    def name(self) -> str:
        """File, row group, row and column, for messages."""
        return f"{self.path.name} row group {self.row_group} row {self.row} {self.column}"

    def __str__(self) -> str:
        return f"{self.path.parent / self.name}"

    def read_bytes(self) -> bytes:
        """The encoded picture.

        Raises:
            DataError: the file cannot be read, or the cell is empty.
        """
        first = 0
        with _opened(self.path) as file:
            for batch in file.iter_batches(
                batch_size=_ROWS_AT_ONCE, row_groups=[self.row_group], columns=[self.column], use_threads=False
            ):
                if self.row < first + batch.num_rows:
                    value = batch.column(0)[self.row - first].as_py()
                    content = value.get("bytes") if isinstance(value, dict) else value
                    if not isinstance(content, bytes):
                        raise DataError(f"{self.name} holds no bytes")
                    return content
                first += int(batch.num_rows)
        raise DataError(f"{self.name} does not exist: the file has changed")


def has_pyarrow() -> bool:
    """Whether parquet files can be read on this machine."""
    return find_spec("pyarrow") is not None


def parquet_files(directory: Path) -> list[Path]:
    """All parquet files in a directory and below, sorted; hidden folders are not searched."""
    found = (path for path in directory.rglob("*.parquet") if path.is_file())
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(directory).parts))


def column_names(path: Path) -> list[str]:
    """The columns at the top level of a parquet file, in its order.

    Raises:
        DataError: pyarrow is missing or the file cannot be read.
    """
    with _opened(path) as file:
        return [str(name) for name in file.schema_arrow.names]


def rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Row group, row in it and values of the named columns, for each row of a parquet file.

    Raises:
        DataError: pyarrow is missing or the file cannot be read.
    """
    with _opened(path) as file:
        for group in range(file.num_row_groups):
            for row, values in enumerate(file.read_row_group(group, columns=list(columns)).to_pylist()):
                yield group, row, values


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not has_pyarrow():
        raise DataError(f"{path}: {NEEDS_PYARROW}")
    arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    try:
        with parquet.ParquetFile(path, memory_map=True) as file:
            yield file
    except (arrow.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as parquet ({error}): fetch the file again") from None
