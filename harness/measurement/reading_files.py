"""The content of a file of cached readings: rows of several samples, stacked, with a checksum."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

Row = Mapping[str, Any]
# Hexadecimal digits of the checksum at the end of a file, stored as the comment of the zip archive.
_DIGITS = 64
# Arrays of a file besides the fields of its rows.
_NAMES, _WITNESS = "names", "witness"


def alike(rows: Iterable[tuple[str, Row]]) -> Iterable[dict[str, Row]]:
    """Return the rows by name, as arrays, in groups with the same fields, types and shapes, which can be stacked."""
    groups: dict[Any, dict[str, Row]] = {}
    for name, values in rows:
        row = {field: np.asanyarray(value) for field, value in values.items()}
        fields = tuple((field, array.dtype.str, array.shape) for field, array in row.items())
        groups.setdefault(fields, {})[name] = row
    return groups.values()


def packed(rows: Mapping[str, Row], witness: Any, address: str) -> memoryview:
    """Return an npz of stacked rows. Its comment is the checksum of the preceding content and the address."""
    fields = next(iter(rows.values()))
    arrays = {field: np.stack([row[field] for row in rows.values()]) for field in fields}
    arrays |= {_NAMES: np.array([*rows]), _WITNESS: witness}
    buffer = io.BytesIO()
    # numpy.savez cannot write a comment, so the archive is written here in the same format.
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.comment = b"0" * _DIGITS
        for field, array in arrays.items():
            with archive.open(f"{field}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    content = buffer.getbuffer()
    content[-_DIGITS:] = _checksum(content[:-_DIGITS], address)
    return content


def unpacked(content: bytes, address: str) -> tuple[dict[str, Row], Any]:
    """Return the rows of a file by name, and its witness; raise ValueError if its checksum does not match."""
    if content[-_DIGITS:] != _checksum(memoryview(content)[:-_DIGITS], address):
        raise ValueError("its checksum does not match")
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        arrays = {field: stored[field] for field in stored.files}
    names, witness = arrays.pop(_NAMES).tolist(), arrays.pop(_WITNESS)
    rows: dict[str, Row] = {
        name: {field: array[row, ...] for field, array in arrays.items()} for row, name in enumerate(names)
    }
    return rows, witness


def _checksum(content: memoryview, address: str) -> bytes:
    digest = hashlib.sha256(address.encode())
    digest.update(content)
    return digest.hexdigest().encode()
