"""Where downloaded and derived files are kept between runs."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from platformdirs import user_cache_dir

from harness.errors import PhaseError

CACHE_VARIABLE = "VLM_PHASE_CACHE"


class CacheError(PhaseError):
    """No cache directory can be named."""


def default_cache() -> Path:
    """The cache directory: the environment variable VLM_PHASE_CACHE, else the user's cache directory of the system.

    Raises:
        CacheError: the user has no home directory, as in a container with a user id of its own.
    """
    given = os.environ.get(CACHE_VARIABLE)
    with suppress(RuntimeError):
        cache = Path(given).expanduser() if given else Path(user_cache_dir("vlm-phase-harness", appauthor=False))
        # Some releases of platformdirs return "~/.cache" as it stands.
        if "~" not in cache.parts:
            return cache
    raise CacheError(
        f"the user has no home directory (HOME is not set), so there is no cache directory: set {CACHE_VARIABLE} to a "
        "directory, or give one with --phase-cache"
    )
