"""What a `--phase-` option takes: each function turns the text that was given into a value, or says what is wrong."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.data.controls import CONTROLS
from harness.data.datasets import DATASETS, find_dataset
from harness.models.registry import ANYBODYS_DATASETS, DTYPES, ModelEntry, find_model
from harness.storage.cache_directory import CacheError, default_cache

AS_DECLARED = "auto"
NO_CONTROL = "none"
FIXTURE = "fixture:"
_DTYPES = ("auto", *DTYPES, *DTYPES.values())
_YEAR = 31536000
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def model(text: str) -> ModelEntry:
    """The entry of a registered name, a checkpoint, or `fixture:NAME`: a model in memory that a fixture gives."""
    if text.startswith(FIXTURE):
        name = text.removeprefix(FIXTURE)
        if not name.isidentifier():
            raise argparse.ArgumentTypeError(f"{text!r} names no fixture: give fixture:NAME, as in fixture:my_vlm")
        return ModelEntry(name, f"the fixture {name}", text, ANYBODYS_DATASETS)
    try:
        return find_model(text)
    except LookupError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def dataset(text: str) -> str:
    """The name of a dataset."""
    try:
        return find_dataset(text).name
    except LookupError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def place(text: str) -> tuple[str, Path]:
    """A dataset on disk and the directory of its files, given as NAME=DIR."""
    name, equals, directory = text.partition("=")
    on_disk = [name for name, dataset in DATASETS.items() if dataset.variable]
    if not equals or not directory or name not in on_disk:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=DIR with one of {', '.join(on_disk)} as NAME")
    return name, Path(directory).expanduser()


def default_place() -> Path:
    """The cache directory of a run that names none.

    Raises:
        pytest.UsageError: the user has no home directory.
    """
    try:
        return default_cache()
    except CacheError as error:
        raise pytest.UsageError(str(error)) from None


def number(least: int) -> Callable[[str], int]:
    """Takes whole numbers of at least `least`."""

    def at_least(text: str) -> int:
        if not re.fullmatch(r"\d+", text) or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return at_least


def seconds(text: str) -> int:
    """Return a number of seconds, up to a year."""
    if (value := number(1)(text)) > _YEAR:
        raise argparse.ArgumentTypeError(f"{text} seconds are more than a year, {_YEAR}")
    return value


def samples(text: str) -> int | None:
    """How many samples; None for as many as the dataset declares."""
    return None if text == AS_DECLARED else number(2)(text)


def device(text: str) -> str:
    """The name of a device."""
    if not _DEVICE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no device; use auto, cpu, cuda, cuda:N or mps")
    return text


def dtype(text: str) -> str:
    """The name of a data type, short or torch's own."""
    if text not in _DTYPES:
        raise argparse.ArgumentTypeError(f"{text!r} is no dtype; use one of {', '.join(_DTYPES)}")
    return text


def control(text: str) -> str:
    """The name of a control, or `none`."""
    if text not in (*CONTROLS, NO_CONTROL):
        raise argparse.ArgumentTypeError(f"{text!r} is no control; use {', '.join(CONTROLS)} or {NO_CONTROL}")
    return text


def in_memory(entry: ModelEntry) -> bool:
    """Whether a fixture gives the model."""
    return entry.loader.startswith(FIXTURE)
