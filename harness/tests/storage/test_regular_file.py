"""Only regular files of bounded size are read: no pipes, sockets, devices or virtual files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.storage.regular_file import read_regular, require_regular
from harness.tests.support.no_files import link_endless_device, make_pipe, make_socket


def make_sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1001)


PIPE = "it is a pipe or a device"


@pytest.mark.skipif(os.name != "posix", reason="pipes, sockets and devices have no paths on this system")
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (make_pipe, PIPE),
        (make_socket, PIPE),
        (link_endless_device, PIPE),
        (lambda path: path.symlink_to("/dev/null"), PIPE),
        (lambda path: path.symlink_to("/proc/self/status"), PIPE),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
        (lambda path: path.symlink_to(path.parent / "nothing"), "No such file or directory"),
        (Path.mkdir, "it is a directory"),
        (make_sparse, "it is larger than 1,000 bytes"),
    ],
    ids=["pipe", "socket", "zero", "null", "virtual", "loop", "missing", "directory", "large"],
)
def test_a_path_that_is_not_a_regular_file_is_an_error_with_a_reason(
    tmp_path: Path, make: Callable[[Path], None], reason: str
) -> None:
    path = tmp_path / "a"
    if not Path("/proc/self/status").exists() and reason == PIPE and make not in (make_pipe, make_socket):
        pytest.skip("this system has no Linux /proc and /dev")
    make(path)
    for read in (require_regular, read_regular):
        with pytest.raises(OSError, match=reason) as caught:
            read(path, 1000)
        assert caught.value.strerror == reason


def test_a_file_is_read_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "empty").touch()
    assert read_regular(tmp_path / "b", 7) == b"content"
    assert require_regular(tmp_path / "b", 7) == 7
    assert read_regular(tmp_path / "empty", 7) == b""


def test_a_path_with_a_null_byte_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="embedded null"):
        require_regular(tmp_path / "a\0", 1)


def replace_after_check(path: Path, content: bytes) -> Callable[[Path, int], int]:
    """Return a `require_regular` during which another process replaces the file."""

    def check(file: Path, most_bytes: int) -> int:
        size = require_regular(file, most_bytes)
        path.with_name("new").write_bytes(content)
        path.with_name("new").replace(path)
        return size

    return check


def test_a_file_that_is_replaced_after_the_check_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    monkeypatch.setattr(
        "harness.storage.regular_file.require_regular", replace_after_check(path, b"new and longer content")
    )
    assert read_regular(path, 22) == b"new and longer content"


def test_a_file_that_is_replaced_by_a_large_one_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    monkeypatch.setattr("harness.storage.regular_file.require_regular", replace_after_check(path, b"larger"))
    with pytest.raises(OSError, match="it is larger than 5 bytes"):
        read_regular(path, 5)
