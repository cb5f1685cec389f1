"""Writing a file so that a reader sees the old one or the new one, never a part."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a neighbouring file, then put it in the place of `path`; on an error `path` stays as it was."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(fresh)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def replace_text(path: Path, text: str) -> None:
    """The same for text in UTF-8."""
    replace_file(path, lambda fresh: fresh.write_text(text, encoding="utf-8"))
