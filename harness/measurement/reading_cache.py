"""A cache of readings per sample, so that an interrupted measurement continues where it stopped.

The readings of a batch are a file `<cache>/readings/<key>/<digest>.npz`. The key is the hash of everything that a
reading depends on except the sample; the digest is the hash of the readings' names. A name is the hash of a sample's
inputs. A run that composes its batches differently looks the readings up by name in all files of the key. A file is
written atomically, and replaced only if it is damaged or outdated. Its checksum does not prevent forgery, so readings
are used only if no other user can have written them.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import PhaseError
from harness.interface import option_text
from harness.measurement.reading_files import Row, alike, packed, unpacked
from harness.storage.file_names import text_digest
from harness.storage.files import remove_abandoned_parts, unwritable_reason, write_atomically
from harness.storage.json_text import dump
from harness.storage.private_files import find_exposure, is_closed_to_others, make_private, read_private

# Incremented whenever earlier files can no longer be read.
FORMAT = 2
KEY_FILE = "key.json"
_READINGS = "readings"
_MOST_NAMED = 5
_MOST_BYTES = 1 << 32
_FILE = re.compile(r"[0-9a-f]{32}\.npz")
# Files whose readings stay in memory: two windows of batches, within which a longer run may sort its samples anew.
_MOST_RECENT = 16
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
    """The cached readings of one key. A witness array per file detects changes which the key does not cover.

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
        self._recent: dict[Path, Mapping[str, Row]] = {}
        self._files: dict[str, Path] = {}
        self._outdated: set[str] = set()
        self._seen: set[str] = set()
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
        """Return the readings of all `names`; None if one is absent, damaged or outdated.

        Args:
            names: the names of a batch. Its own file is read first; without it, all files of the key are searched.
        """
        if self._folder is None or self._is_exposed():
            return None
        rows = self._read_file(self._folder / _file_name(names))
        if not rows.keys() >= set(names):
            self._find_new_files(self._folder)
            rows = {name: row for name in names if (row := self._find(name)) is not None}
        self._cached.update(rows.keys() & names)
        self.contradicted |= any(name in self._outdated and name not in rows for name in names)
        return [dict(rows[name]) for name in names] if rows.keys() >= set(names) else None

    def read_one(self, name: str) -> dict[str, Any] | None:
        """Return the reading `name`; None if it is absent, damaged or outdated."""
        rows = self.read([name])
        return rows[0] if rows else None

    def write(self, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the readings to one file, or to several if their fields differ; report only the first failure.

        Nothing is written to a directory that other users can write to, because their links might lead anywhere.

        Raises:
            ReadingCacheError: the cache does not exist and cannot be created.
        """
        if self._folder is None or self._is_exposed():
            return
        for part in alike(zip(names, rows, strict=True)):
            path = self._folder / _file_name([*part])
            content = packed(part, self._witness, f"{self._address}/{path.stem}")
            try:
                self._prepare(self._folder)
                if self._exposed:
                    return
                if path in self._damaged:
                    # Removed first, because replacing a file preserves its permissions.
                    path.unlink(missing_ok=True)
                write_atomically(path, content, durable=False)
            except OSError as error:
                self._report_failed_write(self._folder, len(part), error)
                continue
            self._seen.add(path.name)
            self._recent.pop(path, None)
            self._files.update(dict.fromkeys(part, path))
            self._cached.update(part)

    def close(self) -> None:
        """Report the numbers of failed writes and damaged files, at the end of a measurement."""
        if len(self._damaged) > _MOST_NAMED:
            self._say(f"{len(self._damaged)} damaged files in {self._folder}: their readings are measured again")
        if self._failed_writes:
            self._say(
                f"{self._failed_writes} readings were measured and not cached in {self._folder} ({self._reason}): "
                "later runs measure them again"
            )

    def _find(self, name: str) -> Row | None:
        path = self._files.get(name)
        return None if path is None else self._read_file(path).get(name)

    def _find_new_files(self, folder: Path) -> None:
        """Note the readings of files that this process has not written or noted; of equal names the newest counts."""
        try:
            with os.scandir(folder) as entries:
                new = [entry for entry in entries if _FILE.fullmatch(entry.name) and entry.name not in self._seen]
            new.sort(key=lambda entry: (entry.stat(follow_symlinks=False).st_mtime_ns, entry.name))
        except FileNotFoundError:
            return
        except OSError as error:
            self._report_damaged(folder, f"cannot be read ({error.strerror})")
            return
        for entry in new:
            self._seen.add(entry.name)
            path = folder / entry.name
            self._files.update(dict.fromkeys(self._read_file(path), path))

    def _read_file(self, path: Path) -> Mapping[str, Row]:
        """Return the readings of a file by name; empty if it is absent, damaged or outdated."""
        if path in self._recent:
            return self._recent[path]
        try:
            content = read_private(path, _MOST_BYTES, closed_to_others=self._closed_to_others)
            rows, witness = unpacked(content, f"{self._address}/{path.stem}")
        except FileNotFoundError:
            return {}
        except OSError as error:
            self._report_damaged(path, f"{'cannot be read' if error.errno else 'is not used'} ({error.strerror})")
            return {}
        except (ValueError, LookupError) as error:
            self._report_damaged(path, f"is damaged ({error})")
            # A run that composes its batches differently would not replace it.
            with contextlib.suppress(OSError):
                path.unlink()
            return {}
        if witness.shape != self._witness.shape or not np.abs(witness - self._witness).max() <= self._tolerance:
            self._outdated.update(rows)
            return {}
        self._recent[path] = rows
        if len(self._recent) > _MOST_RECENT:
            del self._recent[next(iter(self._recent))]
        return rows

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

    def _report_failed_write(self, folder: Path, readings: int, error: OSError) -> None:
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
        self._failed_writes, self._reason = self._failed_writes + readings, reason

    def _report_damaged(self, path: Path, problem: str) -> None:
        if path not in self._damaged:
            self._damaged.add(path)
            if len(self._damaged) <= _MOST_NAMED:
                self._say(f"the file of cached readings {path} {problem}: they are measured again")


def _file_name(names: Sequence[str]) -> str:
    return f"{text_digest(json.dumps([*names]), 32)}.npz"
