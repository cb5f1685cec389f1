"""The two files of a baseline on disk: a JSON with a checksum of itself, and the arrays that it names."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import PhaseError
from harness.interface import option_text
from harness.profile.environment import Environment
from harness.storage.directory_lock import LOCK_FILE, LockedError, locked
from harness.storage.file_names import BASELINE_ENDING, file_name, is_plain_name
from harness.storage.files import remove_abandoned_parts, write_together
from harness.storage.json_text import checksum, dump
from harness.storage.regular_file import read_regular

SCHEMA = 2
#: Readable schemas. They differ in names under `phases` only, and no verdict depends on those.
READABLE_SCHEMAS = (1, SCHEMA)
_CHECKSUM, _NAME, _ARRAYS = "checksum", "arrays", "arrays_sha256"
_SUFFIX = ".npz"
_DIGITS = 12  # of the content's SHA-256 in the name of the arrays
_READS = 10  # attempts to read two files that belong together while other runs write
_MOST_BYTES = 4_000_000_000


class BaselineError(PhaseError):
    """A baseline is missing, damaged or not comparable; the message names the file and the remedy."""


class MissingBaselineError(BaselineError):
    """The pair has no baseline."""


class BaselineExistsError(BaselineError):
    """The pair already has a baseline."""


def model_directory(root: Path, model: str) -> Path:
    """Return the directory of a model's baselines.

    Raises:
        BaselineError: the model's name is no valid directory name, or leads out of the baselines.
    """
    if not is_plain_name(model) or not model.strip("."):
        raise BaselineError(f"a model called {model!r} can have no baselines: use a name instead of a path")
    return root / file_name(model)


def baseline_paths(root: Path, model: str, dataset: str) -> list[Path]:
    """Return the JSON files of a pair's baselines, sorted; raises as `model_directory`."""
    folder, name = model_directory(root, model), file_name(dataset, ending=BASELINE_ENDING)
    return sorted([*folder.glob(f"{name}.json"), *folder.glob(f"{name}.*.json")])


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a baseline's JSON, without its checksum.

    Raises:
        BaselineError: the file is unreadable, has another schema, or does not match its checksum.
    """
    try:
        content = json.loads(read_regular(path, _MOST_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BaselineError(f"the baseline {path} cannot be read: {reason}; {restore_advice(path)}") from None
    if not isinstance(content, dict) or content.get("schema") not in READABLE_SCHEMAS:
        schema = content.get("schema") if isinstance(content, dict) else None
        known = " and ".join(map(str, READABLE_SCHEMAS))
        raise BaselineError(
            f"the baseline {path} has schema {schema}, this version reads {known}; {restore_advice(path)}"
        )
    stated = content.pop(_CHECKSUM, None)
    try:
        actual = checksum(content)
        Environment(**content["environment"])
    except (KeyError, TypeError, ValueError) as error:
        raise BaselineError(f"the baseline {path} is damaged ({error!r}); {restore_advice(path)}") from None
    if stated != actual:
        problem = "has no checksum" if stated is None else "does not match its checksum: it is damaged or edited"
        raise BaselineError(
            f'the baseline {path} {problem}; {restore_advice(path)}; if the content is intended, put "{_CHECKSUM}": '
            f'"{actual}" into it'
        )
    return content


def read_files(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return the content of a baseline's JSON and the bytes of its arrays, which belong together.

    A run that replaces the baseline between the two reads removes the previous arrays, so both are read again.

    Raises:
        BaselineError: a file is unreadable, or the two do not belong together.
    """
    last = None
    for _ in range(_READS):
        content = read_json(path)
        try:
            return content, _read_arrays(path, content)
        except BaselineError as error:
            problem = error
            # Two runs may have replaced the baseline and put it back meanwhile.
            if content == last:
                break
            last = content
    raise problem


def arrays_path(path: Path, content: Mapping[str, Any]) -> Path:
    """Return the path of the arrays that a baseline's JSON names; by default they have the JSON's own name.

    Raises:
        BaselineError: the name does not belong to a file in the same directory.
    """
    name = content.get(_NAME, path.with_suffix(_SUFFIX).name)
    plain = isinstance(name, str) and name.isprintable() and is_plain_name(name)
    if not plain or not name.endswith(_SUFFIX):
        raise BaselineError(
            f"the baseline {path} names {name!r} for its arrays, which is no name of a {_SUFFIX} file beside it; "
            f"{restore_advice(path)}"
        )
    return path.with_name(name)


@contextlib.contextmanager
def locked_for_writing(folder: Path) -> Iterator[bool]:
    """Prevent other processes from writing baselines of a directory.

    Yields:
        True, or False if the file system has no locks.

    Raises:
        BaselineError: the directory is not writable.
        LockedError: another process does not release it.
    """
    with contextlib.ExitStack() as stack:
        try:
            is_locked = stack.enter_context(locked(folder))
        except OSError as error:
            lock = folder / LOCK_FILE
            # A killed run of another user may have left the lock.
            if os.path.lexists(lock):
                raise BaselineError(
                    f"the lock {lock} cannot be acquired: {error.strerror}; remove it if no run is writing, or choose "
                    f"another directory with {option_text('baselines')}"
                ) from None
            raise _not_writable(folder, error) from None
        yield is_locked


def write_files(path: Path, content: Mapping[str, Any], arrays: bytes | None = None) -> None:
    """Write a baseline's JSON with its checksum and optionally new arrays beside it; both or neither.

    The arrays' file name contains a hash of their content, and the JSON, which names them, is written last. A JSON
    therefore always matches its arrays, even after the process is killed.

    Raises:
        BaselineError: the directory is not writable or full; existing files are unchanged.
    """
    files: dict[Path, bytes] = {}
    if arrays is not None:
        digest = hashlib.sha256(arrays).hexdigest()
        content = {**content, _NAME: f"{path.stem}.{digest[:_DIGITS]}{_SUFFIX}", _ARRAYS: digest}
        files[arrays_path(path, content)] = arrays
    files[path] = dump({**content, _CHECKSUM: checksum(content)})
    try:
        write_together(files)
    except OSError as error:
        raise _not_writable(path, error) from None


def change_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a baseline's JSON but not its arrays; raises as `locked_for_writing` and `write_files`."""
    with locked_for_writing(path.parent):
        content = read_json(path)
        change(content)
        write_files(path, content)


def remove_unnamed(path: Path) -> None:
    """Remove arrays of a baseline that no JSON names: its previous arrays and remains of killed updates.

    No other process may write meanwhile. If a JSON in the directory is unreadable, nothing is removed.
    """
    arrays_name = re.compile(rf"{re.escape(path.stem)}(\.[0-9a-f]{{{_DIGITS}}})?{re.escape(_SUFFIX)}")
    named: set[str] = set()
    try:
        for other in path.parent.glob("*.json"):
            content = json.loads(read_regular(other, _MOST_BYTES))
            default = other.with_suffix(_SUFFIX).name
            named.add(content.get(_NAME, default) if isinstance(content, dict) else default)
        for file in path.parent.iterdir():
            if arrays_name.fullmatch(file.name) and file.name not in named:
                file.unlink()
    except (OSError, ValueError, TypeError, RecursionError):
        return


def remove_leftovers(path: Path) -> None:
    """Remove remains of killed updates of a baseline, if its directory is writable."""
    with contextlib.suppress(BaselineError, LockedError), locked_for_writing(path.parent) as is_locked:
        remove_abandoned_parts(path.parent)
        if is_locked:
            remove_unnamed(path)


def restore_advice(path: Path) -> str:
    """Return the remedy for a damaged baseline, for messages."""
    again = option_text("update_new", "True")
    return f"restore it from version control, or remove {path.name} and record it again with {again}"


def _read_arrays(path: Path, content: Mapping[str, Any]) -> bytes:
    arrays_file = arrays_path(path, content)
    try:
        arrays = read_regular(arrays_file, _MOST_BYTES)
    except OSError as error:
        raise BaselineError(
            f"the arrays {arrays_file.name} of {path} cannot be read: {error.strerror}; {restore_advice(path)}"
        ) from None
    if hashlib.sha256(arrays).hexdigest() != content.get(_ARRAYS):
        raise BaselineError(f"{arrays_file} is not the file that {path.name} was written with; {restore_advice(path)}")
    return arrays


def _not_writable(path: Path, error: OSError) -> BaselineError:
    return BaselineError(
        f"the baseline {path} cannot be written: {error.strerror}; free disk space or choose another directory with "
        f"{option_text('baselines')}"
    )
