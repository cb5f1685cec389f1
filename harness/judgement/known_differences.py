"""Claims of the paper that are known not to hold on a pair, each with its measured reason, from one visible file."""

from __future__ import annotations

import tomllib
from pathlib import Path

from harness.errors import PhaseError

FILE = "known_differences.toml"


class KnownDifferencesError(PhaseError):
    """The list of known non-replications cannot be read."""


def known_differences(baselines: Path) -> dict[str, dict[str, str]]:
    """The reasons by pair and claim; empty where the directory holds no such file.

    Raises:
        KnownDifferencesError: the file is not TOML, or not a table of reasons per pair.
    """
    path = baselines / FILE
    if not path.exists():
        return {}
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise KnownDifferencesError(f"{path} cannot be read: {error}; restore it from version control") from None
    for pair, reasons in content.items():
        if not isinstance(reasons, dict) or not all(isinstance(reason, str) for reason in reasons.values()):
            raise KnownDifferencesError(f'{path}: [{pair}] must be a table of claim = "reason"')
    return content
