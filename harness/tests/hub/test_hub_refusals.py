"""Each failed download is an error of one sentence that names the repository and the remedy."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from harness.hub import HubError, cache_problem, find_snapshot
from harness.tests.support.fake_hub import FakeHub
from harness.tests.support.hub_model import (
    DISK,
    MODEL,
    NAME,
    PATTERNS,
    SIZE,
    fetch,
    fetch_error,
    repository_directory,
    unreachable_hub,
)


def test_a_gated_repository_names_the_licence_page_and_the_token_settings(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.gated.add(NAME)
    with pytest.raises(HubError, match="gated"):
        find_snapshot(NAME, "model", PATTERNS, download=True, say=pytest.fail)
    message = fetch_error()
    assert "gated and no token is set" in message
    assert "page in a browser while logged in" in message
    assert "hf auth login" in message
    assert "HF_TOKEN" in message
    monkeypatch.setenv("HF_TOKEN", "stranger")
    assert "gated and your token's account is not admitted" in fetch_error()
    assert hub.fetched() == []
    hub.admitted.add("stranger")
    assert fetch().is_dir()


def test_unknown_repositories_revisions_and_names_are_reported(hub: FakeHub, hub_cache: Path) -> None:
    with pytest.raises(HubError, match=r"the hub shows no dataset no/body: check the spelling.*HF_TOKEN"):
        find_snapshot("no/body", "dataset", PATTERNS, download=True)
    assert f"model {NAME} has no revision v9: name a branch" in fetch_error(revision="v9")
    for wrong in ("a/b/c", "../x/y"):
        assert "write OWNER/NAME" in (cache_problem(wrong, "model", PATTERNS) or "")
        with pytest.raises(HubError, match="write OWNER/NAME"):
            find_snapshot(wrong, "model", PATTERNS, download=True)
    with pytest.raises(HubError, match=rf"{NAME} has no file that matches \*.gguf"):
        find_snapshot(NAME, "model", ["*.gguf"], download=True)
    assert not hub_cache.exists()
    fetch()
    assert "has no file that matches *.gguf" in (cache_problem(NAME, "model", ["*.gguf"]) or "")


def test_a_refused_connection_is_reported(hub_cache: Path) -> None:
    with unreachable_hub(hub_cache):
        message = fetch_error()
    assert "cannot be fetched (ConnectionRefusedError: " in message
    assert "check network and proxy" in message


def test_a_download_with_the_offline_variable_set_is_an_error(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set: unset it" in fetch_error()
    assert hub.requests == []


def test_too_little_disk_space_is_an_error_before_the_download(
    hub: FakeHub, hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: DISK(SIZE, 1, SIZE - 1))
    message = fetch_error()
    assert (
        f"{NAME} needs {SIZE / 1000:.1f} kB and the disk of {hub_cache} has {(SIZE - 1) / 1000:.1f} kB free: "
        in message
    )
    assert "make room" in message
    assert hub.fetched() == []
    (repository_directory(hub_cache) / "blobs").mkdir(parents=True)
    (repository_directory(hub_cache) / "blobs" / "0a.1b.incomplete").write_bytes(bytes(2000))
    assert "stopped downloads left 2.0 kB" in fetch_error()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: DISK(SIZE, 0, SIZE))
    fetch()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "is full"),
        (
            PermissionError(errno.EACCES, "Permission denied", "cache"),
            r"cannot be written to cache \(Permission denied\)",
        ),
        (PermissionError(errno.EACCES, "Permission denied"), r"cannot be fetched \(PermissionError: "),
        (RuntimeError("transfer\nbroke"), r"cannot be fetched \(RuntimeError: transfer\): check network"),
    ],
    ids=["full", "read-only", "forbidden connection", "other transport"],
)
def test_a_failed_download_states_the_reason(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    original = huggingface_hub.snapshot_download

    def stop(repository: str, **options: Any) -> Any:
        if options.get("local_files_only") or options.get("dry_run"):
            return original(repository, **options)
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", stop)
    with pytest.raises(HubError, match=message):
        fetch()


def test_a_cache_that_cannot_be_written_is_named(hub: FakeHub, hub_cache: Path) -> None:
    hub_cache.mkdir(parents=True)
    hub_cache.chmod(0o500)
    try:
        if os.access(hub_cache, os.W_OK):
            pytest.skip("this user may write anywhere")
        assert f"cannot be written to {hub_cache}" in fetch_error()
    finally:
        hub_cache.chmod(0o700)


def test_a_download_prints_nothing_if_there_is_no_terminal(hub: FakeHub, capfd: pytest.CaptureFixture[str]) -> None:
    fetch()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("start", ["../../../", "/nowhere/", "a/../../../../"])
def test_a_file_name_from_the_hub_cannot_lead_out_of_the_cache(hub: FakeHub, hub_cache: Path, start: str) -> None:
    hub.repositories["model", NAME] = {**MODEL, f"{start}outside.json": b"{}"}
    with pytest.raises(HubError, match=r"outside\.json"):
        find_snapshot(NAME, "model", PATTERNS, download=True, say=lambda _: None)
    assert not list(hub_cache.parent.rglob("outside.json"))
