"""Readings of single samples kept between runs, so that an interrupted measurement goes on where it stopped."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import PhaseError
from harness.files import write_atomically


class StoreError(PhaseError):
    """Readings cannot be kept where they should be."""


class ReadingStore:
    """Readings kept per sample, under everything that they depend on and beside what witnesses the rest."""

    def __init__(self, cache: Path | None, key: str, witness: Any, tolerance: float) -> None:
        self._folder = None if cache is None else cache / "readings" / key
        self._witness, self._tolerance = witness, tolerance
        self.contradicted = False

    def read(self, names: Sequence[str]) -> list[dict[str, Any]] | None:
        """The readings of all of `names`, or None where one is not kept, not readable or not to be believed."""
        if self._folder is None:
            return None
        rows = []
        for name in names:
            try:
                # Opened here, because numpy leaves a damaged archive open.
                with (
                    (self._folder / f"{name}.npz").open("rb") as file,
                    np.load(file, allow_pickle=False) as stored,
                ):
                    row = {field: stored[field] for field in stored.files}
                witness = row.pop("witness")
            except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
                return None
            if witness.shape != self._witness.shape or np.abs(witness - self._witness).max() > self._tolerance:
                self.contradicted = True
                return None
            rows.append(row)
        return rows

    def write(self, names: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
        """Keep readings, each file in one step.

        Raises:
            StoreError: the cache cannot be written.
        """
        if self._folder is None:
            return
        for name, row in zip(names, rows, strict=True):
            buffer = io.BytesIO()
            np.savez(buffer, **row, witness=self._witness)
            try:
                write_atomically(self._folder / f"{name}.npz", buffer.getvalue(), durable=False)
            except OSError as error:
                raise StoreError(
                    f"readings cannot be kept in {self._folder} ({error.strerror}); choose another --phase-cache, or "
                    "--phase-no-cache"
                ) from error
