"""Baselines with an attention knockout, compared with runs that did not measure it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from harness.interface import option_text
from harness.profile.measures import KNOCKOUT_FAMILY

if TYPE_CHECKING:
    from harness.baselines.store import Baseline
    from harness.profile.profile import Profile


def lacks_knockout(profile: Profile, name: str) -> bool:
    """Return True if an array belongs to a knockout that the run did not measure."""
    return name.startswith(KNOCKOUT_FAMILY) and not profile.measured((KNOCKOUT_FAMILY,))


def refuse_loss(profile: Profile, stored: Baseline) -> None:
    """Raise `BaselineError` if a baseline to be replaced has a knockout, and the run did not measure it."""
    from harness.baselines.stored_files import BaselineError

    if lacks_knockout(profile, KNOCKOUT_FAMILY) and stored.profile.measured((KNOCKOUT_FAMILY,)):
        raise BaselineError(
            f"{stored.path} holds an attention knockout, which this run did not measure and would lose: add "
            f"{option_text('knockout', 'True')}"
        )


def has_knockout(paths: Iterable[Path]) -> bool:
    """Return True if a baseline in one of these JSON files has the losses of a knockout; not if it is damaged."""
    from harness.baselines.stored_files import BaselineError, read_json

    try:
        return any(KNOCKOUT_FAMILY in read_json(path)["margins"] for path in paths)
    except (BaselineError, KeyError, TypeError):
        return False
