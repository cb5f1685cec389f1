"""Where downloaded and derived files are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_dir

CACHE_VARIABLE = "VLM_PHASE_CACHE"


def default_cache() -> Path:
    """The cache directory: the environment variable VLM_PHASE_CACHE, else the user's cache directory of the system."""
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given).expanduser() if given else Path(user_cache_dir("vlm-phase-harness", appauthor=False))
