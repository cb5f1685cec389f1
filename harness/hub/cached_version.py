"""What the local cache of the model hub holds of one version; nothing here touches the network."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path, PureWindowsPath
from typing import Literal

from harness.hub.hub_refusals import HubError
from harness.storage.regular_file import read_regular

Kind = Literal["model", "dataset"]

_NUMBERED = re.compile(r"-(\d+)-of-(\d+)(?=\.\w+$)")
_CONTENT = (".safetensors", ".parquet")
# Names of missing files that are made up at most: a file's name may say that it is one of any number.
_MOST_MISSING = 10_000
_INDEX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Cached:
    """A snapshot directory, its commit hash, and the names and bytes of the wanted files that it lacks.

    `listed` says that the hub's own list of the files is known. Without it the bytes are 0, and files can be missing
    that nothing here tells of.
    """

    path: Path
    commit: str
    missing: tuple[tuple[str, int], ...]
    listed: bool

    def lacking(self) -> str:
        """The missing files in words."""
        others = len(self.missing) - 1
        more = f" and {others} more files" if others > 1 else " and 1 more file" if others else ""
        return f"{self.missing[0][0]}{more} {'are' if others else 'is'} missing"


def cache_directory() -> Path:
    """The hub's cache, where HF_HOME or HF_HUB_CACHE put it.

    Raises:
        HubError: neither is set, and the user has no home directory.
    """
    from huggingface_hub import constants

    try:
        return Path(constants.HF_HUB_CACHE).expanduser()
    except RuntimeError:
        raise HubError(
            "the user has no home directory (HOME is not set), so there is no local cache of the hub: set HF_HOME to a "
            "directory"
        ) from None


def repository_folder(repository: str, kind: Kind) -> Path:
    """Where the cache keeps all versions of a repository.

    Raises:
        HubError: not a name that a repository can have, or there is no cache.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.file_download import repo_folder_name

    try:
        return cache_directory() / repo_folder_name(repo_id=repository, repo_type=kind)
    except HFValidationError as error:
        raise HubError(f"{repository!r} is no name of a repository: write OWNER/NAME") from error


def look_up(repository: str, kind: Kind, patterns: Sequence[str], revision: str | None) -> Cached | None:
    """What the cache has of a revision ("main" without one), or None.

    Raises:
        HubError: the cache cannot be read, or the version has no file that matches.
    """
    folder = repository_folder(repository, kind)
    try:
        reference = folder / "refs" / (revision or "main")
        commit = reference.read_text().strip() if reference.is_file() else revision
        if not commit or not (folder / "snapshots" / commit).is_dir():
            return None
        path = folder / "snapshots" / commit
        sizes = _listed_sizes(repository, kind, commit)
        if sizes is None:
            names = missing_by_name(path, patterns)
            return Cached(path, commit, tuple((name, 0) for name in names), listed=False)
        wanted = matching(sizes, patterns)
        check_matches(repository, wanted, patterns)
        missing = ((name, sizes[name]) for name in wanted if not is_whole(path / name, sizes[name]))
        return Cached(path, commit, tuple(missing), listed=True)
    except OSError as error:
        raise HubError(
            f"{repository} cannot be read from the local cache ({error}): mend it, or let the variable HF_HUB_CACHE "
            "name another directory"
        ) from error


def missing_by_name(path: Path, patterns: Sequence[str]) -> list[str]:
    """The files whose absence shows without the hub's list, as where another program filled the cache.

    Shards that an index of weights names, the rest of a numbered series, names without wildcards, and weights or tables
    where there are none at all. A pattern stands for its files where no name is known. Of numbered files no more than
    10,000 are made up.
    """
    there = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
    expected = {pattern for pattern in patterns if not re.search(r"[*?\[]", pattern)}
    expected |= {pattern for pattern in patterns if pattern.endswith(_CONTENT) and not matching(there, [pattern])}
    for index in [name for name in there if name.endswith(".safetensors.index.json")]:
        try:
            shards = set(json.loads(read_regular(path / index, _INDEX_BYTES))["weight_map"].values())
            names = [(Path(index).parent / shard).as_posix() for shard in shards]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            there.discard(index)
            expected.add(index)
        else:
            expected |= set(matching(names, patterns))
    series, left = set(), _MOST_MISSING
    for name in matching(there, patterns):
        if number := _NUMBERED.search(name):
            series.add((name[: number.start()], len(number[1]), number[2], name[number.end() :]))
    for before, digits, total, behind in sorted(series):
        # Weights are counted from 1, tables from 0.
        first = 0 if f"{before}-{0:0{digits}}-of-{total}{behind}" in there else 1
        parts = (f"{before}-{i:0{digits}}-of-{total}{behind}" for i in range(first, first + int(total)))
        lacking = list(islice((name for name in parts if name not in there), left))
        left -= len(lacking)
        expected.update(lacking)
    return sorted(expected - there)


def matching(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The names that match one of the shell patterns, in order; "*" matches "/" too."""
    return sorted(name for name in names if any(fnmatch(name, pattern) for pattern in patterns))


def check_matches(repository: str, wanted: Sequence[str], patterns: Sequence[str]) -> None:
    """Asserts that there is anything to want.

    Raises:
        HubError: nothing matches, so that no download would help.
    """
    if not wanted:
        raise HubError(f"{repository} has no file that matches {', '.join(patterns)}: name another one or a revision")


def check_names(repository: str, names: Iterable[str], hashes: Iterable[str]) -> None:
    """Asserts that what a hub calls its files and versions stays in the cache when paths are made of it.

    Raises:
        HubError: a file's name leads out of the repository, or what should be a hash is none.
    """
    # Windows' rules know both slashes and drive letters, so the check is the same on every machine.
    for name in names:
        pure = PureWindowsPath(name)
        if pure.drive or pure.root or ".." in pure.parts or not pure.parts:
            raise HubError(f"{repository} has a file called {name!r}, which leads elsewhere: do not use it")
    for found in hashes:
        if not re.fullmatch("[0-9a-f]+", found):
            raise HubError(f"{repository} has content under {found!r}, which is no hash: do not use it")


def is_whole(path: Path, size: int | None) -> bool:
    """Whether a file is there with all its bytes, as far as their number is known."""
    return path.is_file() and size in (None, path.stat().st_size)


def _listed_sizes(repository: str, kind: Kind, commit: str) -> dict[str, int] | None:
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        tree = get_cached_repo_tree(repository, repo_type=kind, revision=commit, cache_dir=cache_directory())
    except CachedRepoTreeNotFoundError:
        return None
    return {file.path: file.size for file in tree}
