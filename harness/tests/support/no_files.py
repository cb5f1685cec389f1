"""Functions that create a pipe, a socket or a link to a device at an unused path."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    # A socket's address is limited to about 100 characters, so bind it by its file name.
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


def link_endless_device(path: Path) -> None:
    path.symlink_to("/dev/zero")
