"""The known differences: a file beside the baselines lists claims known to fail on a pair, with measured reasons.

A table of the user replaces the bundled table of the same pair.
"""

from __future__ import annotations

import tomllib
from collections.abc import Container, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import PhaseError
from harness.storage.project_files import bundled_baselines

if TYPE_CHECKING:
    from harness.analysis.claims import Claim

KNOWN_DIFFERENCES = "known_differences.toml"
_HEADER = """\
# Claims of the paper that fail on a pair, each with its measured reason. They run as strict expected failures: if such
# a claim begins to hold, its test fails. Keys: the pair, then the claim.
"""


class KnownDifferencesError(PhaseError):
    """The list of known non-replications cannot be read or changed."""


def known_differences(baselines: Path) -> dict[str, dict[str, str]]:
    """Return the reasons by pair and claim: those of the directory, and the bundled ones of other pairs.

    Raises:
        KnownDifferencesError: a file is not TOML, or holds anything but a table of reasons per pair.
    """
    return _read_tables(bundled_baselines() / KNOWN_DIFFERENCES) | _read_tables(baselines / KNOWN_DIFFERENCES)


def _read_tables(path: Path) -> dict[str, dict[str, str]]:
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


def accept_claims(
    baselines: Path, claims: Mapping[str, Mapping[str, Claim]], measured_anew: Container[str] = ()
) -> Path | None:
    """Write the judged claims to the known differences beside the baselines; return the file if it changed.

    Claims that fail are added with their measured reason, claims that hold are removed. Other entries, their comments
    and the reasons of claims that still fail are unchanged.

    Args:
        baselines: the directory of the baselines.
        claims: the judged claims by pair and name.
        measured_anew: the pairs with other numbers than before, whose reasons are replaced.

    Raises:
        KnownDifferencesError: the file cannot be read or edited.
        BaselineError: the directory is not writable.
        LockedError: another run is writing to the directory.
    """
    from harness.baselines.stored_files import locked_for_writing
    from harness.storage.files import write_atomically
    from harness.storage.toml_tables import edit_tables

    path = baselines / KNOWN_DIFFERENCES
    with locked_for_writing(baselines):
        known = known_differences(baselines)
        tables = {pair: _table(known.get(pair, {}), judged, pair in measured_anew) for pair, judged in claims.items()}
        changed = {pair: table for pair, table in tables.items() if table != known.get(pair)}
        if not changed:
            return None
        try:
            before = path.read_bytes().decode("utf-8") if path.exists() else _HEADER
            write_atomically(path, edit_tables(before, changed).encode("utf-8"))
        except ValueError as error:
            raise KnownDifferencesError(f"{path} cannot be edited: {error}; add the claims yourself") from None
        except OSError as error:
            raise KnownDifferencesError(f"{path} cannot be written: {error.strerror}") from None
    return path


def _table(known: Mapping[str, str], claims: Mapping[str, Claim], measured_anew: bool) -> dict[str, str]:
    table = dict(known)
    for name, claim in claims.items():
        if claim.verdict == "holds":
            table.pop(name, None)
        elif claim.verdict == "fails" and (measured_anew or name not in table):
            table[name] = measured_reason(claim)
    return table
