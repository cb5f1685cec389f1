"""The error that a user meets: one clear sentence of what is wrong, where, and what to do."""

from __future__ import annotations


class PhaseError(RuntimeError):
    """Something that the user can mend stands in the way; the message is complete without a traceback."""
