"""The history of a baseline: its accepted changes, each with date, versions, largest change and reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from harness.profile.environment import Environment

#: The key of the history in a baseline's JSON; a baseline without accepted changes lacks it.
HISTORY = "history"


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """An accepted change of a baseline.

    `date` is the UTC day as YYYY-MM-DD. `versions` are those of harness, torch and transformers that measured the new
    numbers. `largest_change` names the measure with the largest change, its size and its layer. `reason` is the user's.
    """

    date: str
    versions: Mapping[str, str]
    largest_change: str
    reason: str

    def record(self) -> dict[str, Any]:
        """Return the entry as JSON types."""
        return asdict(self)


def accepted_today(environment: Environment, largest_change: str, reason: str) -> HistoryEntry:
    """Return the entry of a change that is accepted now, measured in an environment."""
    versions = {
        "harness": version("vlm-phase-harness"),
        "torch": environment.torch,
        "transformers": environment.transformers,
    }
    return HistoryEntry(datetime.now(UTC).date().isoformat(), versions, largest_change, reason)


def read_history(content: Mapping[str, Any]) -> tuple[HistoryEntry, ...]:
    """Return the history in the JSON of a baseline, newest last.

    Raises:
        KeyError, TypeError, ValueError: an entry is damaged.
    """
    return tuple(
        HistoryEntry(
            date=str(entry["date"]),
            versions={str(name): str(number) for name, number in dict(entry["versions"]).items()},
            largest_change=str(entry["largest_change"]),
            reason=str(entry["reason"]),
        )
        for entry in content.get(HISTORY, ())
    )
