"""Code that a hostile checkpoint wants to run, and a check that it did not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

MARKER = "it-ran"


class Payload:
    """What runs where it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return exec, (marker_program(self.place),)


def marker_program(place: Path) -> str:
    """Return a program that leaves a mark above the checkpoint's directory."""
    return f"from pathlib import Path\nPath({str(place.parent / MARKER)!r}).touch()\n"


def payload_ran(place: Path) -> bool:
    return (place.parent / MARKER).exists()
