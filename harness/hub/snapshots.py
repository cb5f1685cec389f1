"""Snapshots of models and datasets from the model hub: found in the local cache, or fetched into it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from harness.errors import PhaseError, shown
from harness.hub.cached_version import (
    Cached,
    Kind,
    cache_directory,
    check_matches,
    check_names,
    is_whole,
    look_up,
    matching,
)
from harness.hub.cached_version import repository_folder as folder_of
from harness.hub.hub_refusals import HubError, explain

if TYPE_CHECKING:
    from huggingface_hub.hf_api import DatasetInfo, ModelInfo, RepoSibling

__all__ = ["HubError", "Kind", "Snapshot", "find_snapshot", "not_cached"]

# The client loses the files that are on their way when it is stopped, and keeps the finished ones: few at a time, so
# that little of 30 GB has to come again.
FILES_AT_A_TIME = 2
SECONDS_TO_ANSWER = 10.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A directory that holds the files of one version; `revision` is its commit hash."""

    path: Path
    revision: str


def not_cached(repository: str, kind: Kind, patterns: Sequence[str], *, revision: str | None = None) -> str | None:
    """Why the local cache has no complete snapshot, with the remedy, or None where it has one; asks no network.

    Args:
        repository: `owner/name`.
        kind: "model" or "dataset".
        patterns: shell patterns of the files that are needed.
        revision: commit hash, branch or tag; "main" without one.
    """
    try:
        return _reason(repository, kind, revision, look_up(repository, kind, patterns, revision))
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
    """The snapshot in the local cache; with `download` what is missing is fetched first.

    The hub is not asked where the cache is known to be complete, so a branch that has moved on is not followed behind
    a user's back. A stopped download goes on with the files that are not yet there. `say` gets one line with the
    size before the first byte comes, and one where the hub fails but the cache will do.

    The first four arguments are those of `not_cached`.

    Raises:
        HubError: not cached; or, with `download`, unknown, gated, unreachable, no room, not writable.
    """
    cached = look_up(repository, kind, patterns, revision)
    reason = _reason(repository, kind, revision, cached)
    if cached is not None and reason is None and (cached.listed or not download):
        return Snapshot(cached.path, cached.commit)
    if not download:
        assert reason is not None
        raise HubError(reason)
    try:
        return _fetch(repository, kind, patterns, revision, say)
    except HubError as error:
        if cached is None or reason is not None:
            raise
        say(f"{error}; going on with what the local cache has")
        return Snapshot(cached.path, cached.commit)


def _reason(repository: str, kind: Kind, revision: str | None, cached: Cached | None) -> str | None:
    name = _name(repository, kind, revision)
    if cached is None:
        return f"{name} is not in the local cache {cache_directory()}: add --phase-download"
    if not cached.missing:
        return None
    size = sum(size for _, size in cached.missing)
    to_come = f" ({_size(size)} to come)" if size else ""
    lacking = f"{cache_directory()}, {cached.lacking()}"
    return f"{name} is not whole in the local cache {lacking}: add --phase-download{to_come}"


def _fetch(
    repository: str, kind: Kind, patterns: Sequence[str], revision: str | None, say: Callable[[str], None]
) -> Snapshot:
    from huggingface_hub import HfApi, constants, snapshot_download

    name, folder, cache = _name(repository, kind), folder_of(repository, kind), cache_directory()
    if constants.is_offline_mode():
        raise HubError(
            f"{name} is not known to be whole in the local cache {cache} and cannot be fetched while HF_HUB_OFFLINE or "
            "TRANSFORMERS_OFFLINE is set: unset it, or copy the cache from a machine with a connection"
        )
    with _one_sentence(f"{kind} {repository}", revision):
        api = HfApi()
        ask = api.model_info if kind == "model" else api.dataset_info
        info: ModelInfo | DatasetInfo = ask(
            repository, revision=revision, files_metadata=True, timeout=SECONDS_TO_ANSWER
        )
        files = {file.rfilename: file for file in info.siblings or ()}
        wanted = matching(files, patterns)
        check_matches(repository, wanted, patterns)
        commit = str(info.sha)
        check_names(repository, wanted, [commit, *(_content(files[file]) for file in wanted)])
        places = {file: _places(folder, commit, files[file]) for file in wanted}
        missing = [file for file in wanted if not any(is_whole(place, files[file].size) for place in places[file])]
        if missing:
            if info.gated:
                api.auth_check(repository, repo_type=kind)
            size = sum(files[file].size or 0 for file in missing)
            _check_room(name, folder, size)
            some = f"{len(missing)} of {len(wanted)}" if len(missing) < len(wanted) else f"{len(wanted)}"
            say(f"fetching {_name(repository, kind, commit)}: {some} files, {_size(size)}, into {cache}")
        for file in wanted:
            _clear_damaged(places[file], files[file].size)
        snapshot_download(
            repository,
            repo_type=kind,
            revision=revision,
            allow_patterns=list(patterns),
            max_workers=FILES_AT_A_TIME,
            tqdm_class=_TerminalBar,
        )
    cached = look_up(repository, kind, patterns, revision)
    if cached is None or cached.missing:
        lacking = f", {cached.lacking()}" if cached else ""
        raise HubError(f"{name} is still not whole in the local cache {cache}{lacking}: try again")
    return Snapshot(cached.path, cached.commit)


class _TerminalBar(tqdm):  # type: ignore[type-arg]
    """A bar that shows itself on a terminal only, and names of files as a terminal may get them."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"disable": None, **options, "desc": shown(str(options.get("desc") or ""))})


@contextmanager
def _one_sentence(name: str, revision: str | None) -> Iterator[None]:
    try:
        yield
    except PhaseError:
        raise
    # The client has two ways of transport with errors of their own; one of them raises plain RuntimeError.
    except Exception as error:
        raise HubError(explain(error, name, revision, cache_directory())) from error


def _places(folder: Path, commit: str, file: RepoSibling) -> tuple[Path, Path]:
    """Where the content of a file lies, which versions share, and its name in the snapshot, most often a link to it."""
    return folder / "blobs" / _content(file), folder / "snapshots" / commit / file.rfilename


def _content(file: RepoSibling) -> str:
    """The hash that the content of a file is kept under."""
    return file.lfs.sha256 if file.lfs else str(file.blob_id)


def _clear_damaged(places: Iterable[Path], size: int | None) -> None:
    # The client takes every file that is there for whole.
    for place in places:
        if place.is_file() and not is_whole(place, size):
            place.unlink()


def _check_room(name: str, folder: Path, size: int) -> None:
    free = shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free
    if free >= size:
        return
    left = sum(file.stat().st_size for file in (folder / "blobs").glob("*.incomplete"))
    also = f", stopped downloads left {_size(left)} in {folder / 'blobs'}/*.incomplete" if left else ""
    raise HubError(
        f"{name} needs {_size(size)} and the disk of {cache_directory()} has {_size(free)} free{also}: make room, or "
        "let the variable HF_HUB_CACHE name a directory on a larger disk"
    )


def _name(repository: str, kind: Kind, revision: str | None = None) -> str:
    short = revision[:7] if revision and re.fullmatch("[0-9a-f]{40}", revision) else revision
    return f"{'dataset ' if kind == 'dataset' else ''}{repository}{f' at revision {short}' if short else ''}"


def _size(n: float) -> str:
    """Bytes as people say them, in decimal units like the hub's own pages."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= scale:
            return f"{n / scale:.1f} {unit}"
    return f"{n:.0f} bytes"
