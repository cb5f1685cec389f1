"""A model and a dataset on a local hub; defines the fixtures `hub`, `hub_cache` and `unlist`."""

from __future__ import annotations

import contextlib
import shutil
import socket
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from harness.hub import HubError, find_snapshot
from harness.tests.support.fake_hub import FakeHub, serve, use_hub

NAME = "somebody/looks-7b"
PATTERNS = ["*.safetensors", "*.json"]
SHARDS = [f"model-{i:05}-of-00003.safetensors" for i in (1, 2, 3)]
INDEX = b'{"weight_map": {"a": "%s", "b": "%s", "c": "%s"}}' % tuple(shard.encode() for shard in SHARDS)
MODEL = {
    "config.json": b"{}",
    "model.safetensors.index.json": INDEX,
    "pytorch_model-00001-of-00001.bin": b"pickle",
    **{shard: bytes([i]) * 3000 for i, shard in enumerate(SHARDS)},
}
SIZE = 9000 + len(INDEX) + 2
TABLES = [f"data/test-{i:05}-of-00002.parquet" for i in (0, 1)]
DATASET = ("dataset", "somebody/pairs")
DISK = namedtuple("DISK", "total used free")


@pytest.fixture
def hub_cache(tmp_path: Path) -> Path:
    return tmp_path / "home" / "hub"


@pytest.fixture
def hub(hub_cache: Path) -> Iterator[FakeHub]:
    repositories = {("model", NAME): dict(MODEL), DATASET: dict.fromkeys([*TABLES, "README.md"], b"table")}
    with serve(repositories) as fake, use_hub(fake.url, hub_cache):
        yield fake


@contextlib.contextmanager
def unreachable_hub(hub_cache: Path) -> Iterator[None]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with use_hub(url, hub_cache):
            yield


def fetch(**options: object) -> Path:
    return find_snapshot(NAME, "model", PATTERNS, download=True, say=lambda _: None, **options).path  # type: ignore[arg-type]


def fetch_error(**options: object) -> str:
    with pytest.raises(HubError) as caught:
        fetch(**options)
    message = str(caught.value)
    assert "\n" not in message
    assert NAME in message
    return message


def repository_directory(hub_cache: Path) -> Path:
    return hub_cache / f"models--{NAME.replace('/', '--')}"


@pytest.fixture
def unlist(hub: FakeHub, hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Remove the file lists from the cache, as if a program without such lists had filled it."""

    def forget() -> Path:
        # The client caches lists by path, so the cache moves.
        moved = hub_cache.rename(hub_cache.with_name("other"))
        for trees in moved.glob("*/trees"):
            shutil.rmtree(trees)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(moved))
        return moved

    return forget


@pytest.fixture
def empty_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty local cache of the hub, and no data paths in the environment."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("VLM_PHASE_COCO", "VLM_PHASE_WINOGROUND"):
        monkeypatch.delenv(name, raising=False)
