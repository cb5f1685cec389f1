"""Snapshots of models and datasets of the Hugging Face hub: found in its local cache or downloaded into it."""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import huggingface_hub as client
from huggingface_hub import constants, errors
from huggingface_hub.file_download import repo_folder_name
from tqdm.auto import tqdm

from harness.errors import PhaseError, error_chain, first_line, printable
from harness.interface import option_text
from harness.storage.regular_file import read_regular

Kind = Literal["model", "dataset"]
# A stopped client loses unfinished files. With few at a time, little of 30 GB is downloaded again.
_AT_A_TIME = 2
_PATIENCE = 10.0  # seconds

_LOG_IN = "`hf auth login` or the variable HF_TOKEN"
_AGAIN = "try again, complete files are kept"
_NUMBERED = re.compile(r"(.*)-(\d+)-of-(\d+)(\.\w+)", re.DOTALL)
_MOST_MISSING = 10_000  # a file's name may claim any number of siblings
_INDEX_BYTES = 64 << 20


class HubError(PhaseError):
    """A model or dataset is unavailable; the message names it, the reason and the remedy."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A directory that holds the files of one version; `revision` is its commit hash."""

    path: Path
    revision: str


@dataclass(frozen=True, slots=True)
class _Cached:
    """A snapshot in the cache, and its missing files with their sizes in bytes.; sizes are 0 if not `listed`."""

    snapshot: Snapshot
    missing: dict[str, int]
    listed: bool

    def lacking(self) -> str:
        others = len(self.missing) - 1
        rest = f" and {others} more files" if others > 1 else " and 1 more file" if others else ""
        return f"{next(iter(self.missing))}{rest} {'are' if others else 'is'} missing"


def cache_problem(repository: str, kind: Kind, patterns: Sequence[str], *, revision: str | None = None) -> str | None:
    """Return why the local cache has no complete snapshot, and the remedy; None if it has. Uses no network.

    Args:
        repository: `owner/name`.
        kind: "model" or "dataset".
        patterns: shell patterns of the required files.
        revision: commit hash, branch or tag; None means "main".
    """
    try:
        return _reason(repository, kind, revision, _look_up(repository, kind, patterns, revision))
    except HubError as error:
        return str(error)


def find_snapshot(
    repository: str,
    kind: Kind,
    patterns: Sequence[str],
    *,
    revision: str | None = None,
    download: bool = False,
    say: Callable[[str], None] = print,
) -> Snapshot:
    """Return the snapshot in the local cache; with `download`, fetch missing files first.

    The hub is not contacted if the cache is known to be complete, so a new commit on a branch is not picked up
    silently. A restarted download fetches only missing files. `say` gets a line with the size before a download, and a
    warning if the hub fails but the cache suffices. The first four arguments are those of `cache_problem`.

    Raises:
        HubError: the snapshot is not cached. With `download`: it is unknown, gated or unreachable, or the disk is full
            or not writable.
    """
    cached = _look_up(repository, kind, patterns, revision)
    reason = _reason(repository, kind, revision, cached)
    if cached is not None and reason is None and (cached.listed or not download):
        return cached.snapshot
    if not download:
        raise HubError(reason or "")
    try:
        return _fetch(repository, kind, patterns, revision, say)
    except HubError as error:
        refusal = error
    # The client has two transports with different errors; one of them raises plain RuntimeError.
    except Exception as error:
        refusal = HubError(_explain(error, f"{kind} {repository}", revision))
        refusal.__cause__ = error
    if cached is None or reason is not None:
        raise refusal
    say(f"{refusal}; continuing with the files in the local cache")
    return cached.snapshot


def find_missing_files(path: Path, patterns: Sequence[str]) -> list[str]:
    """Return files that are known to be missing without the hub's list, for a cache that another program filled.

    These are shards of a weight index, the rest of a numbered series (at most 10,000), names without wildcards, and
    patterns for weights or tables that no file matches.
    """
    there = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
    expected = {pattern for pattern in patterns if not re.search(r"[*?\[]", pattern)}
    expected |= {
        pattern
        for pattern in patterns
        if pattern.endswith((".safetensors", ".parquet")) and not _matching(there, [pattern])
    }
    for index in [name for name in there if name.endswith(".safetensors.index.json")]:
        try:
            shards = set(json.loads(read_regular(path / index, _INDEX_BYTES))["weight_map"].values())
            names = [(Path(index).parent / shard).as_posix() for shard in shards]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            there.discard(index)
            expected.add(index)
        else:
            expected |= set(_matching(names, patterns))
    series = sorted({(m[1], len(m[2]), m[3], m[4]) for m in map(_NUMBERED.fullmatch, _matching(there, patterns)) if m})

    def parts() -> Iterator[str]:
        for before, digits, total, behind in series:
            # Weight shards are numbered from 1, tables from 0.
            first = 0 if f"{before}-{0:0{digits}}-of-{total}{behind}" in there else 1
            yield from (f"{before}-{i:0{digits}}-of-{total}{behind}" for i in range(first, first + int(total)))

    expected.update(islice((name for name in parts() if name not in there), _MOST_MISSING))
    return sorted(expected - there)


def _look_up(repository: str, kind: Kind, patterns: Sequence[str], revision: str | None) -> _Cached | None:
    options: Any = {"repo_type": kind, "cache_dir": _cache_directory()}
    try:
        # Without patterns the client only looks for the directory.
        directory = client.snapshot_download(
            repository, revision=revision, allow_patterns=[], local_files_only=True, **options
        )
        snapshot = Snapshot(path := Path(directory), path.name)
        try:
            tree = client.get_cached_repo_tree(repository, revision=path.name, **options)
        except errors.CachedRepoTreeNotFoundError:
            return _Cached(snapshot, dict.fromkeys(find_missing_files(path, patterns), 0), listed=False)
        sizes = {file.path: file.size for file in tree}
        wanted = {name: sizes[name] for name in _wanted(repository, sizes, patterns)}
        return _Cached(snapshot, {name: n for name, n in wanted.items() if _bytes(path / name) != n}, listed=True)
    except errors.HFValidationError as error:
        raise HubError(f"{repository!r} is not a repository name: write OWNER/NAME") from error
    except errors.LocalEntryNotFoundError:
        return None
    except OSError as error:
        remedy = "repair it, or set the variable HF_HUB_CACHE to another directory"
        raise HubError(f"{repository} cannot be read from the local cache ({error}): {remedy}") from error


def _reason(repository: str, kind: Kind, revision: str | None, cached: _Cached | None) -> str | None:
    name, cache, remedy = _name(repository, kind, revision), _cache_directory(), option_text("download", "True")
    if cached is None:
        return f"{name} is not in the local cache {cache}: add {remedy}"
    size = sum(cached.missing.values())
    remedy = f"add {remedy}{f' ({_size(size)} to come)' if size else ''}"
    return f"{name} is incomplete in the local cache {cache}, {cached.lacking()}: {remedy}" if cached.missing else None


def _fetch(
    repository: str, kind: Kind, patterns: Sequence[str], revision: str | None, say: Callable[[str], None]
) -> Snapshot:
    name, cache = _name(repository, kind), _cache_directory()
    if constants.is_offline_mode():
        raise HubError(
            f"{name} is not known to be whole in the local cache {cache} and cannot be fetched while HF_HUB_OFFLINE or "
            "TRANSFORMERS_OFFLINE is set: unset it, or copy the cache from a machine with a connection"
        )
    info = client.HfApi().repo_info(
        repository, repo_type=kind, revision=revision, files_metadata=True, timeout=_PATIENCE
    )
    sizes = {file.rfilename: file.size or 0 for file in getattr(info, "siblings", None) or ()}
    wanted = _wanted(repository, sizes, patterns)
    fetch: Any = partial(client.snapshot_download, repository, repo_type=kind, allow_patterns=list(patterns))
    plan: list[client.DryRunFileInfo] = fetch(revision=info.sha, tqdm_class=_NoBar, dry_run=True)
    paths = {file.filename: Path(file.local_path) for file in plan}
    # The client takes every existing file for complete.
    damaged = [file for file, path in paths.items() if sizes[file] and _bytes(path) not in (None, sizes[file])]
    coming = {file.filename for file in plan if file.will_download}.union(damaged)
    if coming:
        size = sum(sizes[file] for file in coming)
        blobs = cache / repo_folder_name(repo_id=repository, repo_type=kind) / "blobs"
        free = shutil.disk_usage(next(path for path in blobs.parents if path.exists())).free
        if free < size:
            left = sum(file.stat().st_size for file in blobs.glob("*.incomplete"))
            also = f", stopped downloads left {_size(left)} in {blobs}/*.incomplete" if left else ""
            remedy = "make room, or set the variable HF_HUB_CACHE to a directory on a larger disk"
            raise HubError(f"{name} needs {_size(size)} and the disk of {cache} has {_size(free)} free{also}: {remedy}")
        some = f"{len(coming)} of {len(wanted)}" if len(coming) < len(wanted) else f"{len(wanted)}"
        say(f"fetching {_name(repository, kind, info.sha)}: {some} files, {_size(size)}, into {cache}")
    # The client links to files that another version shares, and these may be damaged too.
    for _ in range(2):
        for file in damaged:
            paths[file].resolve().unlink()
        fetch(revision=revision, tqdm_class=_TerminalBar, max_workers=_AT_A_TIME)
        cached = _look_up(repository, kind, patterns, revision)
        if cached and not cached.missing:
            return cached.snapshot
        damaged = [file for file in cached.missing if paths[file].is_file()] if cached else []
    lacking = f", {cached.lacking()}" if cached else ""
    raise HubError(f"{name} is still incomplete in the local cache {cache}{lacking}: try again")


class _TerminalBar(tqdm):  # type: ignore[type-arg]
    """A progress bar that appears only on a terminal and makes file names safe to print."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"disable": None, **options, "desc": printable(str(options.get("desc") or ""))})


class _NoBar(_TerminalBar):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "disable": True})


def _explain(error: Exception, name: str, revision: str | None) -> str:
    """Return the message for an error of the client, which wraps most causes."""
    chain = list(error_chain(error))
    for link in chain:
        if isinstance(link, errors.GatedRepoError):
            page = "accept its conditions on its page in a browser while logged in"
            if client.get_token() is None:
                return f"{name} is gated and no token is set: {page}, then give your token with {_LOG_IN}"
            return f"{name} is gated and your token's account is not admitted: {page} to that account, then try again"
        if isinstance(link, errors.RepositoryNotFoundError):
            return f"the hub shows no {name}: check the spelling or, if it is private, give a token with {_LOG_IN}"
        if isinstance(link, errors.RevisionNotFoundError):
            return f"{name} has no revision {revision}: name a branch, a tag or a commit that it has"
        if isinstance(link, errors.HfHubHTTPError):
            if (status := link.response.status_code) == 401:
                return f"the hub refuses your token ({status}) for {name}: give a valid one with {_LOG_IN}"
            return f"the hub answers {status} to the request for {name}: {_AGAIN}"
        if isinstance(link, OSError):
            if link.errno in (errno.ENOSPC, errno.EDQUOT):
                return f"the disk of {_cache_directory()} is full and {name} is incomplete: make room and {_AGAIN}"
            # Connections can be refused by permission too, but only errors of files have a file name.
            if link.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and link.filename is not None:
                remedy = "set the variable HF_HUB_CACHE to a directory that you can write to"
                return f"{name} cannot be written to {link.filename} ({link.strerror}): {remedy}"
    reason = f"{type(chain[-1]).__name__}: {first_line(chain[-1], 'no message')}"
    return f"{name} cannot be fetched ({reason}): check network and proxy and {_AGAIN}"


def _cache_directory() -> Path:
    try:
        return Path(constants.HF_HUB_CACHE).expanduser()
    except RuntimeError:
        reason = "the user has no home directory (HOME is not set), so there is no local cache of the hub"
        raise HubError(f"{reason}: set HF_HOME to a directory") from None


def _matching(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    return sorted(name for name in names if any(fnmatch(name, pattern) for pattern in patterns))


def _wanted(repository: str, names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    if wanted := _matching(names, patterns):
        return wanted
    raise HubError(f"{repository} has no file that matches {', '.join(patterns)}: name another one or a revision")


def _bytes(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _name(repository: str, kind: Kind, revision: str | None = None) -> str:
    short = revision[:7] if revision and re.fullmatch("[0-9a-f]{40}", revision) else revision
    return f"{'dataset ' if kind == 'dataset' else ''}{repository}{f' at revision {short}' if short else ''}"


def _size(n: float) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= scale:
            return f"{n / scale:.1f} {unit}"
    return f"{n:.0f} bytes"
