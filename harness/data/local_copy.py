"""The copy of a dataset on this machine: the user's directory, or a snapshot in the local cache of the hub."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.data.parquet import NEEDS_PYARROW, has_pyarrow
from harness.data.sample import DataError, Source


@dataclass(frozen=True, slots=True)
class LocalCopy:
    """Where a dataset's files are looked for.

    `repository` is the hub dataset that holds it as parquet files matching `patterns`; `remedy` is what a user
    without any copy can do. `refuse_layout` raises DataError for a directory that has no known layout.
    """

    dataset: str
    repository: str
    patterns: tuple[str, ...]
    remedy: str
    refuse_layout: Callable[[Path], None]

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
        from harness.hub import not_cached

        if source.directory is not None:
            return self._problem(source.directory.expanduser())
        if not source.download and not_cached(self.repository, "dataset", self.patterns) is not None:
            where = "in the local cache, or not whole"
            return f"no directory was given and {self.repository} is not {where}: {self.remedy}"
        if not has_pyarrow():
            return f"{self.repository} is not read: {NEEDS_PYARROW}"
        return None

    def _problem(self, directory: Path) -> str | None:
        """Return why a directory cannot hold the dataset, or None."""
        try:
            if not directory.is_dir():
                return f"{directory} is no directory: {self.dataset} is looked for there; {self.remedy}"
            self.refuse_layout(directory)
        except DataError as error:
            return str(error)
        except OSError as error:
            return f"{directory} cannot be read ({error.strerror}): check its permissions"
        return None
