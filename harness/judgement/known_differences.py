"""The known differences: a file beside the baselines lists claims known to fail on a pair, with measured reasons."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import PhaseError

if TYPE_CHECKING:
    from harness.analysis.claims import Claim

KNOWN_DIFFERENCES = "known_differences.toml"


class KnownDifferencesError(PhaseError):
    """The list of known non-replications cannot be read or changed."""


def known_differences(baselines: Path) -> dict[str, dict[str, str]]:
    """Return the reasons by pair and claim; empty if the directory has no such file.

    Raises:
        KnownDifferencesError: the file is not TOML, or holds anything but a table of reasons per pair.
    """
    path = baselines / KNOWN_DIFFERENCES
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


def measured_reason(claim: Claim) -> str:
    """Return why a claim has its verdict: the statement of the decisive part with its numbers and n."""
    return f"{claim.decisive.statement} ({claim.decisive.n} samples)"
