"""A cache of readings per sample, so that an interrupted measurement continues where it stopped.

Each reading is a file `<cache>/readings/<key>/<name>.npz`. The key is the hash of everything that a reading depends on
except the sample; the name is the hash of the sample's inputs. A file is replaced only if it is damaged or outdated. It
is written atomically and ends with a checksum of its content and its address `<key>/<name>`. The checksum does not
prevent forgery, so readings are used only if no other user can have written them.
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
from harness.interface import option_text
from harness.storage.file_names import text_digest
from harness.storage.files import remove_abandoned_parts, unwritable_reason, write_atomically
from harness.storage.json_text import dump
from harness.storage.private_files import find_exposure, is_closed_to_others, make_private, read_private

# Incremented whenever earlier files can no longer be read.
FORMAT = 1
KEY_FILE = "key.json"
_READINGS = "readings"
_MOST_NAMED = 5
_MOST_BYTES = 1 << 28
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class ReadingCacheError(PhaseError):
    """The cache of readings cannot be created."""


def cache_problem(cache: Path) -> str:
    """Return the reason why a cache is unusable; empty if it is writable, or is read-only and holds files."""
    with contextlib.suppress(OSError):
        make_private(cache)
    problem = unwritable_reason(cache)
    with contextlib.suppress(OSError):
        return "" if any(cache.iterdir()) else problem
    return problem


class ReadingCache:
    """The cached readings of one key, each with a witness array that detects changes which the key does not cover.

    A read-only cache or a full disk is reported once and does not stop the measurement. Its numbers are the same, but
    an interrupted run must measure them again. Every further write is tried, because disk space may become free.
    """

    def __init__(
        self,
        cache: Path | None,
        key: Mapping[str, Any],
        witness: Any,
        tolerance: float,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Open the readings of a key; no file is created before the first write.

        Args:
            cache: the cache directory; None disables the cache.
            key: everything except the sample that a reading depends on, as JSON types.
            witness: the current witness array.
            tolerance: the largest difference of a cached witness to the current one.
            say: receives a line on damaged files and failed writes.
        """
        self._key = dump({"format": FORMAT, **key})
        self._cache = cache
        self._address = text_digest(self._key.decode(), 32)
        self._folder = None if cache is None else cache / _READINGS / self._address
        self._witness, self._tolerance, self._say = witness, tolerance, say
        self._damaged: set[Path] = set()
        self._failed_writes, self._reason, self._prepared = 0, "", False
        self._exposed: str | None = None
        self._closed_to_others = False
        self._cached: set[str] = set()
        self.contradicted = False

    @property
    def progress(self) -> str:
        """The number of cached readings of this run and their directory, for the message of a run that ends early."""
        if self._folder is None:
            return "no readings are cached, because there is no cache"
        if not self._cached:
            return "no readings are cached yet"
        return f"{len(self._cached)} readings are cached in {self._cache}: the same command continues from there"

    @property
    def keeps_all(self) -> bool:
        """True if there is a cache and every write to it succeeded."""
        return self._folder is not None and not self._exposed and not self._failed_writes

    def read(self, names: Sequence[str]) -> list[dict[str, Any]] | None:
        """Return the readings of all `names`; None if one is absent, damaged or outdated."""
        # Read all files, so that every damaged one is reported.
        rows = [self.read_one(name) for name in names]
        present = [row for row in rows if row is not None]
        return present if len(present) == len(rows) else None

    def read_one(self, name: str) -> dict[str, Any] | None:
        """Return the reading `name`; None if it is absent, outdated, or damaged, which is reported."""
        if self._folder is None or self._is_exposed():
            return None
        path = self._folder / f"{name}.npz"
        try:
            row = _unpacked(
                read_private(path, _MOST_BYTES, closed_to_others=self._closed_to_others), f"{self._address}/{name}"
            )
        except FileNotFoundError:
            return None
        except OSError as error:
            self._report_damaged(path, f"{'cannot be read' if error.errno else 'is not used'} ({error.strerror})")
            return None
        except ValueError as error:
            self._report_damaged(path, f"is damaged ({error})")
            return None
        witness = row.pop("witness")
        if witness.shape != self._witness.shape or not np.abs(witness - self._witness).max() <= self._tolerance:
            self.contradicted = True
            return None
        self._cached.add(name)
        return row

    def write(self, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        """Write each reading atomically; report only the first failure.

        Nothing is written to a directory that other users can write to, because their links might lead anywhere.

        Raises:
            ReadingCacheError: the cache does not exist and cannot be created.
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
                    # Removed first, because replacing a file preserves its permissions.
                    path.unlink(missing_ok=True)
                write_atomically(path, content, durable=False)
                self._cached.add(name)
            except OSError as error:
                self._report_failed_write(self._folder, error)

    def close(self) -> None:
        """Report the numbers of failed writes and damaged files, at the end of a measurement."""
        if len(self._damaged) > _MOST_NAMED:
            self._say(f"{len(self._damaged)} damaged readings in {self._folder} were measured again")
        if self._failed_writes:
            self._say(
                f"{self._failed_writes} readings were measured and not cached in {self._folder} ({self._reason}): "
                "later runs measure them again"
            )

    def _prepare(self, folder: Path) -> None:
        """Before the first write, remove remains of killed writes and write the key file."""
        if self._prepared or self._cache is None:
            return
        make_private(self._cache, _READINGS, self._address)
        # Another user may have created one of the directories in the meantime.
        self._exposed = None
        if self._is_exposed():
            return
        remove_abandoned_parts(folder)
        key_file = folder / KEY_FILE
        if not key_file.is_file() or key_file.read_bytes() != self._key:
            write_atomically(key_file, self._key, durable=False)
        self._prepared = True

    def _is_exposed(self) -> bool:
        """Return True if other users may have written to the directory; check and report at the first call only."""
        if self._exposed is None and self._cache is not None and self._folder is not None:
            self._exposed = find_exposure([self._cache, self._cache / _READINGS, self._folder])
            self._closed_to_others = is_closed_to_others(self._folder)
            if self._exposed:
                self._say(
                    f"readings are neither used nor cached, because {self._exposed}: they are measured again; choose "
                    f"another {option_text('cache')} to cache them"
                )
        return bool(self._exposed)

    def _report_failed_write(self, folder: Path, error: OSError) -> None:
        reason = error.strerror or str(error)
        if isinstance(error, FileExistsError | NotADirectoryError) or not (self._cache and self._cache.is_dir()):
            raise ReadingCacheError(
                f"readings cannot be cached in {folder} ({reason}); choose another "
                f"{option_text('cache')}, or {option_text('no_cache', 'True')}"
            ) from error
        if not self._failed_writes:
            if error.errno in _READ_ONLY:
                self._say(
                    f"the cache {self._cache} cannot be written ({reason}): its readings are used, new ones "
                    f"are not cached; choose another {option_text('cache')} to cache them"
                )
            else:
                self._say(
                    f"readings are no longer cached in {folder} ({reason}): the measurement continues, but an "
                    f"interrupted run starts again; free disk space, or choose another {option_text('cache')}"
                )
        self._failed_writes, self._reason = self._failed_writes + 1, reason

    def _report_damaged(self, path: Path, problem: str) -> None:
        if path not in self._damaged:
            self._damaged.add(path)
            if len(self._damaged) <= _MOST_NAMED:
                self._say(f"the cached reading {path} {problem}: it is measured again")


# Hexadecimal digits of the checksum at the end of a file, stored as the comment of the zip archive.
_DIGITS = 64


def _packed(row: Mapping[str, Any], address: str) -> memoryview:
    """Return an npz whose comment is the checksum of the preceding content and the address."""
    buffer = io.BytesIO()
    # numpy.savez cannot write a comment, so the archive is written here in the same format.
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.comment = b"0" * _DIGITS
        for field, array in row.items():
            with archive.open(f"{field}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
    content = buffer.getbuffer()
    content[-_DIGITS:] = _checksum(content[:-_DIGITS], address)
    return content


def _unpacked(content: bytes, address: str) -> dict[str, Any]:
    """Return the arrays of a file; raise ValueError if its checksum does not match."""
    if content[-_DIGITS:] != _checksum(memoryview(content)[:-_DIGITS], address):
        raise ValueError("its checksum does not match")
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        return {field: stored[field] for field in stored.files}


def _checksum(content: memoryview, address: str) -> bytes:
    digest = hashlib.sha256(address.encode())
    digest.update(content)
    return digest.hexdigest().encode()
