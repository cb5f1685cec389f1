"""Code that a hostile checkpoint wants to run, and a check that it did not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

MARKER = "it-ran"


class Code:
    """What runs where it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return exec, (written_by(self.place),)


def written_by(place: Path) -> str:
    """Return a program that leaves a mark above the checkpoint's directory."""
    return f"from pathlib import Path\nPath({str(place.parent / MARKER)!r}).touch()\n"


def ran(place: Path) -> bool:
    return (place.parent / MARKER).exists()
