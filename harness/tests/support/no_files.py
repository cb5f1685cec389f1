"""Makes what lies in the file system and is no file, at a path where nothing is."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    # The address of a socket has at most about 100 characters, so it is bound by its name alone.
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


def link_endless_device(path: Path) -> None:
    path.symlink_to("/dev/zero")
