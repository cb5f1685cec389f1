"""Readings of single samples kept between runs, so that an interrupted measurement goes on where it stopped.

A reading lies in a file of its own under `<cache>/readings/<key>/<name>.npz`: the key is the hash of everything that it
depends on but the sample, the name that of the sample's inputs. Files are added and never changed, save where one is
damaged or contradicted. Each is written in one step and ends with a checksum of itself and of where it belongs. The
checksum is no secret: readings are believed only where nobody but the user can have written them.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import PhaseError
from harness.storage.file_names import text_digest
from harness.storage.files import remove_abandoned_parts, unwritable_reason, write_atomically
from harness.storage.json_text import dump
from harness.storage.private_files import find_exposure, is_closed_to_others, make_private, read_private

# Raised by one whenever files of before can no longer be read.
FORMAT = 1
KEY_FILE = "key.json"
_READINGS = "readings"
_NAMED_AT_MOST = 5
_MOST_BYTES = 1 << 28
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class ReadingCacheError(PhaseError):
    """Readings cannot be kept where they should be."""


def cache_problem(cache: Path) -> str:
    """Why a cache is of no use; empty where it can be written, or is read-only and holds something."""
    with contextlib.suppress(OSError):
        make_private(cache)
    problem = unwritable_reason(cache)
    with contextlib.suppress(OSError):
        return "" if any(cache.iterdir()) else problem
    return problem


class ReadingCache:
    """Readings kept per sample, under everything that they depend on and beside what witnesses the rest.

    What cannot be kept (a read-only cache, a full disk) is said once and does not end the measurement: its numbers
    are the same, and nothing that was measured is lost but the way back to it after a crash. Each further reading is
    tried again, because somebody may make room meanwhile.
    """

    def __init__(
        self,
        cache: Path | None,
        key: Mapping[str, Any],
        witness: Any,
        tolerance: float,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Open the readings of a key; nothing is written before the first reading is.

        Args:
            cache: the directory of all that is kept; None keeps nothing.
            key: everything but the sample that a reading depends on, as JSON types.
            witness: what stands for all that the key cannot name, measured now; an array.
            tolerance: how far a kept witness may be from it.
            say: takes a line on what is damaged and on what cannot be kept.
        """
        self._key = dump({"format": FORMAT, **key})
        self._cache = cache
        self._address = text_digest(self._key.decode(), 32)
        self._folder = None if cache is None else cache / _READINGS / self._address
        self._witness, self._tolerance, self._say = witness, tolerance, say
        self._damaged: set[Path] = set()
        self._not_kept, self._reason, self._prepared = 0, "", False
        self._exposed: str | None = None
        self._sheltered = False
        self._kept: set[str] = set()
        self.contradicted = False

    @property
    def progress(self) -> str:
        """The number of readings that this run has seen kept, and where, for a run that ends early."""
        if self._folder is None:
            return "nothing is kept without a cache"
        if not self._kept:
            return "nothing is kept yet"
        return f"{len(self._kept)} readings are kept in {self._cache}: the same command goes on from there"

    @property
    def keeps_all(self) -> bool:
        """Whether there is a cache, and all that was measured could be written to it."""
        return self._folder is not None and not self._exposed and not self._not_kept

    def read(self, names: Sequence[str]) -> list[dict[str, Any]] | None:
        """Return the readings of all of `names`, or None where one is not kept, damaged or not to be believed."""
        # All of them, so that each which is damaged is named.
        rows = [self.read_one(name) for name in names]
        found = [row for row in rows if row is not None]
        return found if len(found) == len(rows) else None

    def read_one(self, name: str) -> dict[str, Any] | None:
        """Return the reading `name`, or None where it is not kept, damaged (which is said) or not to be believed."""
        if self._folder is None or self._is_exposed():
            return None
        path = self._folder / f"{name}.npz"
        try:
            row = _unpacked(read_private(path, _MOST_BYTES, sheltered=self._sheltered), f"{self._address}/{name}")
        except FileNotFoundError:
            return None
        except OSError as error:
            self._found_damaged(path, f"{'cannot be read' if error.errno else 'is not used'} ({error.strerror})")
            return None
        except ValueError as error:
            self._found_damaged(path, f"is damaged ({error})")
            return None
        witness = row.pop("witness")
        if witness.shape != self._witness.shape or not np.abs(witness - self._witness).max() <= self._tolerance:
            self.contradicted = True
            return None
        self._kept.add(name)
        return row

    def write(self, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep readings, each file in one step; what cannot be kept is said once.

        Nothing is written where others can write: their links might lead anywhere.

        Raises:
            StoreError: there is no such cache, and none can be made.
        """
        if self._folder is None or self._is_exposed():
            return
        for name, row in zip(names, rows, strict=True):
            content = _packed({**row, "witness": self._witness}, f"{self._address}/{name}")
            try:
                self._prepare(self._folder)
                if self._exposed:
                    return
                path = self._folder / f"{name}.npz"
                if path in self._damaged:
                    # A file that is replaced would hand on its permissions.
                    path.unlink(missing_ok=True)
                write_atomically(path, content, durable=False)
                self._kept.add(name)
            except OSError as error:
                self._cannot_keep(self._folder, error)

    def close(self) -> None:
        """Says, when a measurement is over, what it could not keep and how much it found damaged."""
        if len(self._damaged) > _NAMED_AT_MOST:
            self._say(f"{len(self._damaged)} damaged readings in {self._folder} were measured anew")
        if self._not_kept:
            self._say(
                f"{self._not_kept} readings were measured and not kept in {self._folder} ({self._reason}): a run that "
                "needs them measures them again"
            )

    def _prepare(self, folder: Path) -> None:
        """Clear what killed writes left, and write beside the readings whose they are; at the first write only."""
        if self._prepared or self._cache is None:
            return
        make_private(self._cache, _READINGS, self._address)
        # Another user may have made one of them in the meantime.
        self._exposed = None
        if self._is_exposed():
            return
        remove_abandoned_parts(folder)
        described = folder / KEY_FILE
        if not described.is_file() or described.read_bytes() != self._key:
            write_atomically(described, self._key, durable=False)
        self._prepared = True

    def _is_exposed(self) -> bool:
        """Return True if others may have written what the folder holds; examined and said at the first call."""
        if self._exposed is None and self._cache is not None and self._folder is not None:
            self._exposed = find_exposure([self._cache, self._cache / _READINGS, self._folder])
            self._sheltered = is_closed_to_others(self._folder)
            if self._exposed:
                self._say(
                    f"readings are neither used nor kept, because {self._exposed}: they are measured anew; choose "
                    "another --phase-cache to keep them"
                )
        return bool(self._exposed)

    def _cannot_keep(self, folder: Path, error: OSError) -> None:
        reason = error.strerror or str(error)
        if isinstance(error, FileExistsError | NotADirectoryError) or not (self._cache and self._cache.is_dir()):
            raise ReadingCacheError(
                f"readings cannot be kept in {folder} ({reason}); choose another --phase-cache, or --phase-no-cache"
            ) from error
        if not self._not_kept:
            if error.errno in _READ_ONLY:
                self._say(
                    f"the cache {self._cache} cannot be written ({reason}): readings that it holds are used, new ones "
                    "are not kept; choose another --phase-cache to keep them"
                )
            else:
                self._say(
                    f"readings are no longer kept in {folder} ({reason}): the measurement goes on, but would not "
                    "survive an interruption; make room, or choose another --phase-cache"
                )
        self._not_kept, self._reason = self._not_kept + 1, reason

    def _found_damaged(self, path: Path, what: str) -> None:
        if path not in self._damaged:
            self._damaged.add(path)
            if len(self._damaged) <= _NAMED_AT_MOST:
                self._say(f"the kept reading {path} {what}: it is measured anew")


# The end of a file: hexadecimal digits, in the place that a zip archive has for a comment.
_DIGITS = 64


def _packed(row: Mapping[str, Any], address: str) -> memoryview:
    """An npz whose comment is the checksum of all that stands before it and of the address."""
    buffer = io.BytesIO()
    # As numpy.savez writes it, which knows no comment and would have to be opened again for one.
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.comment = b"0" * _DIGITS
        for field, array in row.items():
            with archive.open(f"{field}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
    content = buffer.getbuffer()
    content[-_DIGITS:] = _checksum(content[:-_DIGITS], address)
    return content


def _unpacked(content: bytes, address: str) -> dict[str, Any]:
    """Return the arrays of a file. Raises ValueError where it is not what was written there."""
    if content[-_DIGITS:] != _checksum(memoryview(content)[:-_DIGITS], address):
        raise ValueError("its checksum does not match")
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        return {field: stored[field] for field in stored.files}


def _checksum(content: memoryview, address: str) -> bytes:
    digest = hashlib.sha256(address.encode())
    digest.update(content)
    return digest.hexdigest().encode()
