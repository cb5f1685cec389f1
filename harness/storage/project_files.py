"""Directories of cases and baselines: packages of an installed wheel, or top-level directories of a clone."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def bundled_cases() -> Path:
    """Return the directory of the project's cases."""
    return _directory("cases", "cases")


def bundled_baselines() -> Path:
    """Return the directory of the paper's claims and of the baselines of the bundled models; do not write to it."""
    return _directory("bundled_baselines", "baselines")


def _directory(packaged: str, in_clone: str) -> Path:
    installed = _PACKAGE / packaged
    return installed if installed.is_dir() else _PACKAGE.parent / in_clone
