"""The two files of a baseline on disk: a JSON with a checksum of itself and of the arrays beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import PhaseError
from harness.files import sweep, write_together
from harness.json_text import checksum, dump
from harness.provenance import Environment

SCHEMA = 1
_CHECKSUM, _ARRAYS = "checksum", "arrays_sha256"


class BaselineError(PhaseError):
    """A baseline is missing, damaged or not comparable; the message says which file and what to do."""


class MissingBaselineError(BaselineError):
    """There is no baseline of this pair."""


def read_json(path: Path) -> dict[str, Any]:
    """The content of a baseline's JSON, without its checksum.

    Raises:
        BaselineError: not readable, not of this schema, or not what its checksum was made of.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BaselineError(f"the baseline {path} cannot be read: {error}; {restore(path)}") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else None
        raise BaselineError(f"the baseline {path} is of schema {found}, this version reads {SCHEMA}; {restore(path)}")
    stated = content.pop(_CHECKSUM, None)
    try:
        found = checksum(content)
        Environment(**content["environment"])
    except (KeyError, TypeError, ValueError) as error:
        raise BaselineError(f"the baseline {path} is damaged ({error!r}); {restore(path)}") from None
    if stated != found:
        problem = "has no checksum" if stated is None else "is not what its checksum was made of: damaged, or edited"
        raise BaselineError(
            f'the baseline {path} {problem}; {restore(path)}; if what it says now is meant, put "{_CHECKSUM}": '
            f'"{found}" into it'
        )
    return content


def read_arrays(path: Path, content: Mapping[str, Any]) -> bytes:
    """The bytes of the arrays beside a baseline's JSON.

    Raises:
        BaselineError: not readable, or not the file that the JSON was written with.
    """
    beside = path.with_suffix(".npz")
    try:
        arrays = beside.read_bytes()
    except OSError as error:
        raise BaselineError(f"the arrays of {path} cannot be read: {error}; {restore(path)}") from None
    if hashlib.sha256(arrays).hexdigest() != content.get(_ARRAYS):
        raise BaselineError(f"{beside} is not the file that {path.name} was written with; {restore(path)}")
    return arrays


def write_files(path: Path, content: Mapping[str, Any], arrays: bytes | None = None) -> None:
    """Stores a baseline's JSON with its checksum and, where given, the arrays beside it; both or neither.

    Raises:
        BaselineError: the directory is not writable or full; what was there is untouched.
    """
    files: dict[Path, bytes] = {}
    if arrays is not None:
        files[path.with_suffix(".npz")] = arrays
        content = {**content, _ARRAYS: hashlib.sha256(arrays).hexdigest()}
    files[path] = dump({**content, _CHECKSUM: checksum(content)})
    sweep(path.parent)
    try:
        write_together(files)
    except OSError as error:
        raise BaselineError(
            f"the baseline {path} cannot be written: {error.strerror}; make room or choose another place with "
            "--phase-baselines"
        ) from None


def restore(path: Path) -> str:
    """What to do about a damaged baseline, for messages."""
    return f"restore it from version control, or remove {path.name} and record it anew with --phase-update-new"
