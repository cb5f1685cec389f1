"""Paths to checkpoints as users type them: directories that are none, files, and names that could be a repository."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from harness.models.foreign_formats import no_configuration


def refuse_path(text: str) -> None:
    """Raise `LookupError` if a text leads to a file, to a directory without config.json, or is a path to nowhere.

    A text that may be a name, or a repository ORG/NAME, passes.
    """
    if "://" in text:
        raise LookupError(f"{text!r} is an address: give a directory, or the repository as ORG/NAME")
    path = Path(text).expanduser()
    if path.is_file():
        raise LookupError(f"{text!r} is a file: give the directory that holds it, {str(path.parent)!r}")
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise LookupError(f"the directory {text!r} {no_configuration(path)}")
    elif path.is_absolute() or text.startswith((".", "~")) or text.endswith("/") or len(path.parts) > 2:
        raise LookupError(f"there is no directory {text!r}{_nearest(path)}: check the path")


def no_directory(source: str) -> str:
    """Return the start of a sentence about ORG/NAME that nobody registered, in case a directory was meant."""
    return f"there is no directory {source!r} here{_nearest(Path(source))}, so it is taken as a repository of the hub: "


def _nearest(path: Path) -> str:
    """Return what lies where a path ends: a name that resembles the missing one, or the first part that is missing."""
    missing = next(part for part in (*reversed(path.parents), path) if not part.exists())
    if missing != path:
        return f" ({str(missing)!r} is not there)"
    names = [inner.name for inner in missing.parent.iterdir() if inner.is_dir()]
    similar = get_close_matches(path.name, names, n=1)
    return f" (there is {str(path.parent / similar[0])!r})" if similar else ""
