"""A local model hub that gives the responses which the hub's client reads."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

Repositories = dict[tuple[str, str], dict[str, bytes]]

# Like the real hub, it identifies only large files by sha256.
LARGE = (".safetensors", ".parquet")
_API = re.compile(r"/api/(model|dataset)s/([^/]+/[^/]+)(?:/(revision|tree|auth-check)(?:/([^/]+))?)?$")
_FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)$")


@dataclass
class FakeHub:
    """The repositories and faults of a local hub. All fields may be changed while it serves.

    `admitted` holds the tokens that may read the gated repositories. `cut` maps a file's name to the bytes after which
    its next transfer breaks off. `failing` maps a file's name to the status of its content's response.
    `requests` holds method, path and Range of each request.
    """

    repositories: Repositories
    gated: set[str] = field(default_factory=set)
    admitted: set[str] = field(default_factory=set)
    cut: dict[str, int] = field(default_factory=dict)
    failing: dict[str, int] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""

    def commit(self, kind: str, repository: str) -> str:
        """Return the hash of the only version, the branch main."""
        digest = hashlib.sha1(f"{kind} {repository}".encode(), usedforsecurity=False)
        for name, content in sorted(self.repositories[kind, repository].items()):
            digest.update(_hash(name, content).encode() + name.encode())
        return digest.hexdigest()

    def fetched(self) -> list[tuple[str, str | None]]:
        """Return the names of the files whose content was requested, in order, each with its Range."""
        matches = ((_FILE.search(path), span) for method, path, span in self.requests if method == "GET")
        return [(match[4], span) for match, span in matches if match]

    def environment(self, cache: Path) -> dict[str, str]:
        """Return the environment variables that point another program to this hub and to `cache`."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(cache.parent),
            "HF_HUB_CACHE": str(cache),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }


@contextmanager
def serve(repositories: Repositories) -> Iterator[FakeHub]:
    hub = FakeHub(repositories)

    class Handler(_HubHandler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def use_hub(url: str, cache: Path) -> Iterator[None]:
    """Point the hub's client in this process to `url` and `cache`, without a token."""
    from huggingface_hub import close_session, constants

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", url)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_TOKEN_PATH", str(cache.parent / "token"))
        patch.setattr(constants, "HF_STORED_TOKENS_PATH", str(cache.parent / "stored_tokens"))
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            patch.delenv(name, raising=False)
        close_session()
        try:
            yield
        finally:
            close_session()


class _HubHandler(BaseHTTPRequestHandler):
    hub: FakeHub

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        # Some tests kill the client.
        with suppress(ConnectionError):
            self._answer()

    def do_GET(self) -> None:
        self.do_HEAD()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        if api := _API.match(path):
            kind, repository, endpoint, revision = api.groups()
        elif file := _FILE.match(path):
            kind, repository, endpoint, revision = "dataset" if file[1] else "model", file[2], "file", file[3]
        else:
            return self._refuse(404)
        if (kind, repository) not in self.hub.repositories:
            return self._refuse(401, "RepoNotFound")
        commit = self.hub.commit(kind, repository)
        if revision not in (None, "main", commit):
            return self._refuse(404, "RevisionNotFound")
        if endpoint in ("file", "auth-check") and repository in self.hub.gated:
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            if token not in self.hub.admitted:
                return self._refuse(403 if token else 401, "GatedRepo")
        contents = self.hub.repositories[kind, repository]
        if endpoint == "file":
            return self._file(path.split("/resolve/")[1].split("/", 1)[1], contents, commit)
        if endpoint == "tree":
            return self._json([_entry(name, content) for name, content in contents.items()])
        siblings = [_sibling(name, content) for name, content in contents.items()]
        gated = "auto" if repository in self.hub.gated else False
        return self._json({"id": repository, "sha": commit, "gated": gated, "siblings": siblings})

    def _file(self, name: str, contents: Mapping[str, bytes], commit: str) -> None:
        if self.command == "GET" and name in self.hub.failing:
            return self._refuse(self.hub.failing[name])
        if name not in contents:
            return self._refuse(404, "EntryNotFound")
        content = contents[name]
        span = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        first = int(span[1]) if span else 0
        self.send_response(206 if span else 200)
        self.send_header("ETag", f'"{_hash(name, content)}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", str(len(content) - first))
        if span:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[first:][: self.hub.cut.pop(name, None)])

    def _json(self, content: Any) -> None:
        text = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _refuse(self, status: int, code: str = "") -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _hash(name: str, content: bytes) -> str:
    if name.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _sibling(name: str, content: bytes) -> dict[str, Any]:
    large = {"lfs": {"size": len(content), "sha256": _hash(name, content), "pointerSize": 130}}
    return {"rfilename": name, "size": len(content), "blobId": _hash(name, content)} | (
        large if name.endswith(LARGE) else {}
    )


def _entry(name: str, content: bytes) -> dict[str, Any]:
    large = {"lfs": {"size": len(content), "oid": _hash(name, content), "pointerSize": 130}}
    return {"type": "file", "path": name, "size": len(content), "oid": _hash(name, content)} | (
        large if name.endswith(LARGE) else {}
    )
