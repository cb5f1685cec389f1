"""Parquet tables: rows without images, and single images on demand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.data.photograph import MOST_BYTES
from harness.data.sample import DataError, quote
from harness.storage.regular_file import require_regular

#: Most rows, values and bytes of text in the tables of a dataset; see `TableSize`.
MOST_ROWS, MOST_VALUES, MOST_TEXT = 5_000_000, 50_000_000, 1_000_000_000
NEEDS_PYARROW = "parquet files are read with pyarrow, which is not installed: pip install 'vlm-phase-harness[hub]'"
# Bytes of a batch of images, even if every row is as large as its whole column.
_PICTURES_AT_ONCE = 500_000_000
# Rows per batch while skipping to a requested row: few, unless rows are too small to be images.
_PICTURE_ROWS, _LEAST_PICTURE = 16, 1000
_ROWS_AT_ONCE = 1024
# With more bytes of text, rows are converted to Python objects one by one.
_TEXT_AT_ONCE = 8_000_000
_MOST_FILE = 10**12
_MOST_GROUPS = 100_000
# Reading an image skips the earlier rows of its group. Polars writes up to 262,144 rows per group.
_MOST_ROWS_IN_GROUP = 300_000
_DEEPEST = 16
# The only fields that are read of a structure: a caption's text and an image's content.
_FIELDS = ("raw", "bytes")


@dataclass(slots=True)
class TableSize:
    """The rows, values and bytes of text read so far from a dataset's tables.

    COCO Captions has 620,000 rows and 40 MB of text, Conceptual Captions 3,300,000 and 200 MB. A malicious table of a
    few kilobytes can unpack to any size.
    """

    rows: int = 0
    values: int = 0
    text: int = 0

    def add(self, path: Path, rows: int = 0, values: int = 0, text: int = 0) -> None:
        """Add the size of a table.

        Raises:
            DataError: the total exceeds a limit.
        """
        self.rows, self.values, self.text = self.rows + rows, self.values + values, self.text + text
        for amount, most, noun in (
            (self.rows, MOST_ROWS, "rows"),
            (self.values, MOST_VALUES, "values in the columns of captions and ids"),
            (self.text, MOST_TEXT, "bytes of captions and ids"),
        ):
            if amount > most:
                raise DataError(
                    f"{path}: the tables have {amount:,} {noun}, more than the limit of {most:,}; remove some files"
                )


@dataclass(frozen=True, slots=True)
class UnreadableValue:
    """A table value that Python cannot represent, and the reason."""

    reason: str

    def __repr__(self) -> str:
        return f"unreadable ({self.reason})"


@dataclass(frozen=True, slots=True)
class ImageCell:
    """An encoded image in a parquet file, read on demand and not cached.

    `row` counts from the start of the row group. The column contains {bytes, path} structures or plain bytes. A read
    loads the column in batches of rows.
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
        """Return the encoded image.

        Raises:
            DataError: the file cannot be read, or the cell is empty.
        """
        first = 0
        with _opened(self.path) as file:
            leaves = _leaves(self.path, file, [self.column])
            group = file.metadata.row_group(self.row_group)
            size = max(1, group.total_byte_size)
            few = size > _LEAST_PICTURE * group.num_rows
            rows_at_once = min(max(1, _PICTURES_AT_ONCE // size), _PICTURE_ROWS if few else _ROWS_AT_ONCE)
            for batch in file.iter_batches(
                batch_size=rows_at_once, row_groups=[self.row_group], columns=leaves, use_threads=False
            ):
                if self.row < first + batch.num_rows:
                    return self._content(batch.column(self.column)[self.row - first])
                first += int(batch.num_rows)
        raise DataError(f"{self.name} does not exist: the file has changed")

    def _content(self, cell: Any) -> bytes:
        types = import_module("pyarrow").types
        if types.is_struct(cell.type) and any(field.name == "bytes" for field in cell.type):
            cell = cell["bytes"] if cell.is_valid else cell
        if types.is_dictionary(cell.type):
            cell = cell.value
        binary = types.is_binary(cell.type) or types.is_large_binary(cell.type) or types.is_binary_view(cell.type)
        buffer = cell.as_buffer() if binary else None
        if buffer is None:
            raise DataError(f"{self.name} holds no bytes")
        if buffer.size > MOST_BYTES:
            raise DataError(f"{self.name} is larger than {MOST_BYTES:,} bytes")
        return bytes(buffer.to_pybytes())


def has_pyarrow() -> bool:
    """Return True if pyarrow is installed, so that parquet files can be read."""
    return find_spec("pyarrow") is not None


def parquet_files(directory: Path) -> list[Path]:
    """Return all parquet files in a directory and its subfolders, sorted; hidden folders are skipped."""
    files = (path for path in directory.rglob("*.parquet") if path.is_file())
    return sorted(p for p in files if not any(part.startswith(".") for part in p.relative_to(directory).parts))


def column_names(path: Path) -> list[str]:
    """Return the names of the top-level columns of a parquet file, in file order.

    Raises:
        DataError: pyarrow is missing or the file cannot be read.
    """
    with _opened(path) as file:
        return [str(name) for name in file.schema_arrow.names]


def read_rows(path: Path, columns: Sequence[str], amount: TableSize) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield the row group, the row's index in it and the values of the columns, for each row of a parquet file.

    Only the field `raw` of a structure is read if it exists. A value that Python cannot represent is `UnreadableValue`,
    such as text that is not UTF-8 or a date beyond the year 9999.

    Args:
        path: the file.
        columns: names of top-level columns.
        amount: size of the dataset's files read so far; this file's size is added.

    Raises:
        DataError: pyarrow is missing, the file cannot be read, or a size limit is exceeded.
    """
    with _opened(path) as plain:
        leaves = _leaves(path, plain, columns)
        schema = plain.read_row_groups([], columns=leaves).schema
        # Read as a dictionary, a text that many rows share is in memory only once until it is counted.
        with _opened(path, read_dictionary=leaves, metadata=plain.metadata) as file:
            _add_claims(path, file, leaves, amount)
            file_size = TableSize()
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=leaves, use_threads=False)
                for first in range(0, table.num_rows, _ROWS_AT_ONCE):
                    part = table.slice(first, _ROWS_AT_ONCE).combine_chunks()
                    text = _count(path, part, file_size)
                    for row, values in enumerate(_rows_of(part, schema, at_once=text <= _TEXT_AT_ONCE), start=first):
                        yield group, row, values


def _leaves(path: Path, file: Any, columns: Sequence[str]) -> list[str]:
    paths: list[str] = []
    for column in columns:
        leaves = [
            leaf for leaf in map(file.schema.column, range(len(file.schema))) if leaf.path.split(".")[0] == column
        ]
        if any(leaf.max_definition_level > _DEEPEST for leaf in leaves):
            raise DataError(f"{path}: its column {column} is nested too deep: store captions as text or lists of text")
        fields = [leaf.path for leaf in leaves if leaf.path != column and leaf.name in _FIELDS]
        paths += fields or [leaf.path for leaf in leaves]
    return paths


def _add_claims(path: Path, file: Any, leaves: Sequence[str], amount: TableSize) -> None:
    """Add the sizes that a file's metadata claims, before unpacking; raise DataError above a limit."""
    if file.num_row_groups > _MOST_GROUPS:
        raise DataError(f"{path} has {file.num_row_groups:,} row groups: write it with {_MOST_GROUPS:,} or fewer")
    amount.add(path, rows=max(0, file.metadata.num_rows))
    file_size = TableSize()
    for group in range(file.num_row_groups):
        content = file.metadata.row_group(group)
        count = content.num_rows
        file_size.add(path, rows=max(0, count))
        if count > _MOST_ROWS_IN_GROUP:
            raise DataError(f"{path} has a row group of {count:,} rows: write it with {_MOST_ROWS_IN_GROUP:,} or fewer")
        # Read a row first: querying the metadata of an encrypted column would crash pyarrow's process.
        next(file.iter_batches(batch_size=1, row_groups=[group], columns=leaves, use_threads=False), None)
        for index in (index for index in range(content.num_columns) if file.schema.column(index).path in leaves):
            chunk = content.column(index)
            values = max(0, chunk.num_values)
            fixed = values * max(0, file.schema.column(index).length or 0)
            amount.add(path, values=values, text=max(fixed, chunk.total_uncompressed_size))


def _count(path: Path, table: Any, total: TableSize) -> int:
    """Add a table's real size, which may differ from the metadata; return the bytes of its text."""
    total.add(path, rows=table.num_rows)
    before = total.text
    arrow, compute = import_module("pyarrow"), import_module("pyarrow.compute")
    for leaf in (chunk for column in table.columns for chunk in column.chunks):
        while not isinstance(leaf, arrow.DictionaryArray) and hasattr(leaf, "flatten"):
            leaf = leaf.flatten()[0] if isinstance(leaf, arrow.StructArray) else leaf.flatten()
        text = leaf.nbytes
        if isinstance(leaf, arrow.DictionaryArray):
            lengths = compute.binary_length(leaf.dictionary) if _is_text(leaf.dictionary.type) else None
            text = compute.sum(lengths.take(leaf.indices)).as_py() or 0 if lengths is not None else text
        total.add(path, values=len(leaf), text=text)
    return total.text - before


def _rows_of(table: Any, schema: Any, *, at_once: bool) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table as Python objects; a value without a Python object is `UnreadableValue`."""
    if at_once:
        with suppress(Exception):  # Conversions may raise any error.
            yield from _written_out(table, schema).to_pylist()
            return
    for row in range(table.num_rows):
        part = table.slice(row, 1)
        yield {name: _value(part.select([name]), schema) for name in schema.names}


def _written_out(table: Any, schema: Any) -> Any:
    """Return a table without dictionaries, which converts five times faster; unchanged if its texts are views."""
    arrow = import_module("pyarrow")
    try:
        return table.cast(arrow.schema([schema.field(name) for name in table.column_names]))
    except arrow.ArrowNotImplementedError:
        return table


def _value(cell: Any, schema: Any) -> Any:
    try:
        return _written_out(cell, schema).column(0)[0].as_py()
    except MemoryError:
        raise
    except Exception as error:
        return UnreadableValue(quote(error))


def _is_text(kind: Any) -> bool:
    types = import_module("pyarrow").types
    return any(test(kind) for test in (types.is_string, types.is_binary, types.is_large_string, types.is_large_binary))


@contextmanager
def _opened(path: Path, **options: Any) -> Iterator[Any]:
    if not has_pyarrow():
        raise DataError(f"{path}: {NEEDS_PYARROW}")
    parquet = import_module("pyarrow.parquet")
    try:
        require_regular(path, _MOST_FILE)
        with parquet.ParquetFile(path, memory_map=True, **options) as file:
            yield file
    except DataError:
        raise
    except MemoryError:
        raise DataError(f"{path} does not fit into memory: split its rows into several files or row groups") from None
    except Exception as error:  # Decoders may raise any error for broken bytes.
        reason = quote(getattr(error, "strerror", None) or str(error))
        remedy = "write it without encryption" if "crypt" in reason else "download the file again"
        raise DataError(f"{path} cannot be read as parquet ({reason}): {remedy}") from None
