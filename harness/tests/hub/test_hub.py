"""Cached snapshots are found without network access and missing files are downloaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants

from harness.hub import HubError, cache_problem, find_snapshot
from harness.tests.support.fake_hub import FakeHub
from harness.tests.support.hub_model import (
    DATASET,
    INDEX,
    MODEL,
    NAME,
    PATTERNS,
    SHARDS,
    SIZE,
    TABLES,
    fetch,
    fetch_error,
    repository_directory,
    unreachable_hub,
)


def test_a_missing_snapshot_is_reported_with_the_remedy_and_without_network_access(
    hub: FakeHub, hub_cache: Path
) -> None:
    expected = f"{NAME} is not in the local cache {hub_cache}: add --phase-download"
    assert cache_problem(NAME, "model", PATTERNS) == expected
    assert (cache_problem("a/b", "dataset", PATTERNS) or "").startswith("dataset a/b is not in the local cache")
    assert f"{NAME} at revision v2 is not in" in (cache_problem(NAME, "model", PATTERNS, revision="v2") or "")
    with pytest.raises(HubError, match=r"not in the local cache .*: add --phase-download"):
        find_snapshot(NAME, "model", PATTERNS)
    assert hub.requests == []
    assert not hub_cache.exists()


def test_the_size_is_reported_before_the_download_and_the_revision_is_the_commit(hub: FakeHub, hub_cache: Path) -> None:
    messages, fetched_before = [], []

    def report(line: str) -> None:
        messages.append(line)
        fetched_before.extend(hub.fetched())

    snapshot = find_snapshot(NAME, "model", PATTERNS, download=True, say=report)
    commit = hub.commit("model", NAME)
    assert messages == [f"fetching {NAME} at revision {commit[:7]}: 5 files, {SIZE / 1000:.1f} kB, into {hub_cache}"]
    assert fetched_before == []
    assert snapshot.revision == commit
    assert {path.name: path.read_bytes() for path in snapshot.path.iterdir()} == {
        name: content for name, content in MODEL.items() if not name.endswith(".bin")
    }


def test_a_cached_snapshot_is_found_without_network_access(hub: FakeHub, hub_cache: Path) -> None:
    path, commit = fetch(), hub.commit("model", NAME)
    hub.requests.clear()
    with unreachable_hub(hub_cache):
        for revision in (None, "main", commit):
            assert cache_problem(NAME, "model", PATTERNS, revision=revision) is None
            for download in (False, True):
                snapshot = find_snapshot(NAME, "model", PATTERNS, revision=revision, download=download)
                assert (snapshot.path, snapshot.revision) == (path, commit)
        assert "at revision 0000000 is not in" in (cache_problem(NAME, "model", PATTERNS, revision=40 * "0") or "")
    assert hub.requests == []


def test_a_dataset_and_a_model_of_the_same_name_are_cached_separately(hub: FakeHub) -> None:
    hub.repositories["model", DATASET[1]] = {"config.json": b"{}"}
    snapshot = find_snapshot(DATASET[1], "dataset", ["*.parquet"], download=True, say=lambda _: None)
    assert snapshot.revision == hub.commit(*DATASET)
    assert sorted(path.relative_to(snapshot.path).as_posix() for path in snapshot.path.rglob("*.*")) == TABLES
    assert cache_problem(DATASET[1], "dataset", ["*.parquet"]) is None
    assert "is not in the local cache" in (cache_problem(DATASET[1], "model", ["*.json"]) or "")


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "unlisted"])
def test_an_incomplete_snapshot_is_refused_and_the_missing_shard_named(
    hub: FakeHub, unlist: Callable[[], Path], listed: bool
) -> None:
    path = fetch()
    (path / SHARDS[1]).resolve().unlink()
    if not listed:
        unlist()
    message = cache_problem(NAME, "model", PATTERNS) or ""
    assert f"{SHARDS[1]} is missing: add --phase-download" in message
    assert message.endswith("(3.0 kB to come)") is listed
    with pytest.raises(HubError, match=SHARDS[1]):
        find_snapshot(NAME, "model", PATTERNS)
    messages: list[str] = []
    find_snapshot(NAME, "model", PATTERNS, download=True, say=messages.append)
    assert "1 of 5 files, 3.0 kB" in messages[0]
    assert cache_problem(NAME, "model", PATTERNS) is None


def test_missing_files_are_inferred_from_file_names_if_the_hubs_list_is_absent(
    hub: FakeHub, unlist: Callable[[], Path]
) -> None:
    commit = fetch().name
    find_snapshot(DATASET[1], "dataset", ["*.parquet"], download=True, say=lambda _: None)
    cache = unlist()
    model = repository_directory(cache) / "snapshots" / commit
    data = next(cache.glob("datasets--*/snapshots/*/data"))

    assert cache_problem(NAME, "model", PATTERNS) is None
    assert find_snapshot(NAME, "model", PATTERNS).revision == commit
    assert "merges.txt is missing" in (cache_problem(NAME, "model", [*PATTERNS, "merges.txt"]) or "")
    assert cache_problem(DATASET[1], "dataset", ["*.parquet"]) is None
    (data / "test-00000-of-00002.parquet").unlink()
    assert "missing" in (cache_problem(DATASET[1], "dataset", ["*.parquet"]) or "")

    index = (model / "model.safetensors.index.json").resolve()
    index.write_bytes(INDEX.replace(SHARDS[2].encode(), b"vision.safetensors"))
    assert "vision.safetensors is missing" in (cache_problem(NAME, "model", PATTERNS) or "")
    index.unlink()
    assert cache_problem(NAME, "model", PATTERNS) is None
    (model / SHARDS[2]).unlink()
    assert f"{SHARDS[2]} is missing" in (cache_problem(NAME, "model", PATTERNS) or "")
    (model / "model.safetensors.index.json").write_text("{")
    assert f"{SHARDS[2]} and 1 more file are missing" in (cache_problem(NAME, "model", PATTERNS) or "")
    for shard in SHARDS[:2]:
        (model / shard).unlink()
    (model / "model.safetensors.index.json").unlink()
    assert "*.safetensors is missing" in (cache_problem(NAME, "model", PATTERNS) or "")


def test_without_the_list_the_hub_is_queried_and_the_cache_is_used_if_it_fails(
    hub: FakeHub, unlist: Callable[[], Path]
) -> None:
    commit = fetch().name
    cache = unlist()
    messages: list[str] = []
    with unreachable_hub(cache):
        assert find_snapshot(NAME, "model", PATTERNS, download=True, say=messages.append).revision == commit
    assert len(messages) == 1
    assert "cannot be fetched" in messages[0]
    assert messages[0].endswith("continuing with the files in the local cache")
    hub.requests.clear()
    assert find_snapshot(NAME, "model", PATTERNS, download=True, say=messages.append).revision == commit
    assert hub.requests != []
    assert hub.fetched() == []
    assert len(messages) == 1
    # The list is cached now.
    hub.requests.clear()
    find_snapshot(NAME, "model", PATTERNS, download=True)
    assert hub.requests == []


def test_a_truncated_file_is_detected_and_downloaded_again(hub: FakeHub) -> None:
    path = fetch()
    (path / SHARDS[0]).resolve().write_bytes(b"short")
    assert f"{SHARDS[0]} is missing" in (cache_problem(NAME, "model", PATTERNS) or "")
    hub.requests.clear()
    assert fetch() == path
    assert hub.fetched() == [(SHARDS[0], None)]
    assert (path / SHARDS[0]).read_bytes() == MODEL[SHARDS[0]]
    assert cache_problem(NAME, "model", PATTERNS) is None


def test_a_truncated_file_shared_by_two_revisions_is_downloaded_again(hub: FakeHub) -> None:
    path = fetch()
    (path / SHARDS[0]).resolve().write_bytes(b"short")
    hub.repositories["model", NAME] = {**MODEL, "config.json": b'{"changed": true}'}
    commit = hub.commit("model", NAME)
    snapshot = find_snapshot(NAME, "model", PATTERNS, revision=commit, download=True, say=lambda _: None)
    assert snapshot.path != path
    assert (snapshot.path / SHARDS[0]).read_bytes() == MODEL[SHARDS[0]]
    assert cache_problem(NAME, "model", PATTERNS, revision=commit) is None


def test_a_stopped_download_resumes_with_the_missing_files_only(hub: FakeHub) -> None:
    hub.failing[SHARDS[2]] = 500
    message = fetch_error()
    assert "500" in message
    assert "complete files are kept" in message
    assert "--phase-download" in (cache_problem(NAME, "model", PATTERNS) or "")
    complete = {name for name, _ in hub.fetched()} - {SHARDS[2]}
    hub.failing.clear()
    hub.requests.clear()
    messages: list[str] = []
    snapshot = find_snapshot(NAME, "model", PATTERNS, download=True, say=messages.append)
    requested = [name for name, _ in hub.fetched()]
    assert SHARDS[2] in requested
    assert not complete & set(requested)
    assert f"{len(requested)} of 5 files" in messages[0]
    assert (snapshot.path / SHARDS[2]).read_bytes() == MODEL[SHARDS[2]]


@pytest.mark.slow
def test_an_interrupted_transfer_resumes_at_its_last_byte(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 500)
    hub.cut[SHARDS[0]] = 1200
    path = fetch()
    assert [span for name, span in hub.fetched() if name == SHARDS[0]] == [None, "bytes=1000-"]
    assert (path / SHARDS[0]).read_bytes() == MODEL[SHARDS[0]]
