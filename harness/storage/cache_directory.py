"""The directory for downloaded and derived files, kept between runs."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from harness.errors import PhaseError
from harness.interface import option_text

CACHE_VARIABLE = "VLM_PHASE_CACHE"


class CacheError(PhaseError):
    """The cache directory is unknown."""


def default_cache() -> Path:
    """Return the cache directory: the environment variable VLM_PHASE_CACHE, else the user's system cache.

    Raises:
        CacheError: the user has no home directory, as with an arbitrary user id in a container.
    """
    # Imported late, because pytest imports this module in every project.
    from platformdirs import user_cache_dir

    value = os.environ.get(CACHE_VARIABLE)
    with suppress(RuntimeError):
        cache = Path(value).expanduser() if value else Path(user_cache_dir("vlm-phase-harness", appauthor=False))
        # Some releases of platformdirs return "~/.cache" unexpanded.
        if "~" not in cache.parts:
            return cache
    raise CacheError(
        f"the user has no home directory (HOME is not set), so there is no cache directory: set {CACHE_VARIABLE} to a "
        f"directory, or give one with {option_text('cache')}"
    )
