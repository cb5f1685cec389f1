"""Errors of cooperating processes, and their conversion for sending between processes."""

from __future__ import annotations

import traceback
from pathlib import Path

from harness.errors import PhaseError


class ProcessError(PhaseError):
    """Another process failed, ended or runs other work; the message names the process and its work."""


def to_portable(error: BaseException | None, rank: int) -> tuple[type[PhaseError], str] | None:
    """Return class and message of an error for sending; an unexpected one as a ProcessError with its source line."""
    if error is None:
        return None
    if isinstance(error, PhaseError):
        return type(error), str(error)
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return ProcessError, f"process {rank} failed with {type(error).__name__}: {str(error).strip() or '-'}{where}"


def from_portable(kind: type[PhaseError], message: str) -> Exception:
    """Return the error that another process sent."""
    # Some constructors take more arguments than the message, so they are bypassed.
    return kind.__new__(kind, message)
