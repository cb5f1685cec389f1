"""Errors between processes that measure together: the class of their own, and how any error travels."""

from __future__ import annotations

import traceback
from pathlib import Path

from harness.errors import PhaseError


class ProcessError(PhaseError):
    """Another process failed, ended, or does something else; the message says which and where."""


def portable(error: BaseException | None, rank: int) -> tuple[type[PhaseError], str] | None:
    """Return an error as it travels; what nobody foresaw says where it was raised."""
    if error is None:
        return None
    if isinstance(error, PhaseError):
        return type(error), str(error)
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return ProcessError, f"process {rank} failed with {type(error).__name__}: {str(error).strip() or '-'}{where}"


def received(kind: type[PhaseError], sentence: str) -> Exception:
    """Return the error that another process has met."""
    # Some take more than their sentence when they are made.
    return kind.__new__(kind, sentence)
