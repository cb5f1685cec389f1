"""Code in a hostile checkpoint, and a check that it did not run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

MARKER = "it-ran"


class Payload:
    """An object that runs code when it is unpickled."""

    def __init__(self, directory: Path) -> None:
        self.place = directory

    def __reduce__(self) -> Any:
        return exec, (marker_program(self.place),)


def marker_program(directory: Path) -> str:
    """Return a program that creates a marker file in the checkpoint's parent directory."""
    return f"from pathlib import Path\nPath({str(directory.parent / MARKER)!r}).touch()\n"


def payload_ran(directory: Path) -> bool:
    return (directory.parent / MARKER).exists()
