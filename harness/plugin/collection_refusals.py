"""Usage errors over collected pairs: what makes a measurement impossible and is known before it begins."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest

from harness.data.datasets import find_dataset
from harness.errors import PhaseError
from harness.measurement.reading_cache import unusable
from harness.profile.pair import Pair
from harness.run.option_row import in_memory
from harness.run.session import PhaseSession


def refuse_interpreter() -> None:
    """Assert that Python keeps docstrings, which transformers reads as it is imported.

    Raises:
        pytest.UsageError: it strips them.
    """
    if sys.flags.optimize > 1:
        raise pytest.UsageError(
            "Python strips docstrings here (-OO or PYTHONOPTIMIZE=2), and transformers cannot be imported without: run "
            "with -O or without it"
        )


def refuse_device(session: PhaseSession) -> None:
    """Assert that the device of the run is there.

    Raises:
        pytest.UsageError: it is not.
    """
    from harness.models.vlm import choose_device

    try:
        choose_device(session.options.device)
    except PhaseError as error:
        raise pytest.UsageError(str(error)) from None


def refuse_pairs(session: PhaseSession, pairs: Sequence[Pair], on_command_line: Sequence[str]) -> None:
    """Assert that what was asked for by name is there and fit for use; no weight is read, and one picture of each list.

    Args:
        session: the options and the way to load models.
        pairs: those that are measured.
        on_command_line: datasets whose directories were named there.

    Raises:
        pytest.UsageError: a directory of data does not exist, has no known layout or no usable sample, a model or
            dataset that was named is not here, or its configuration, processor or a package that it needs is missing.
    """
    options = session.options
    datasets = {pair.dataset for pair in pairs}
    for name in dict.fromkeys((*on_command_line, *options.datasets)):
        if name in datasets:
            _refuse_data(session, name)
            datasets.remove(name)
    for pair in pairs:
        missing = options.unavailable(pair)
        if missing and missing[1]:
            raise pytest.UsageError(f"{pair} was asked for and cannot be measured here: {missing[0]}")
        if not missing and pair.dataset in datasets:
            _refuse_data(session, pair.dataset)
            datasets.remove(pair.dataset)
    models = {pair.model for pair in pairs}
    for entry in options.named():
        if entry.name in models and not in_memory(entry):
            try:
                session.loaded.refuse_unloadable(entry.name)
            except PhaseError as error:
                raise pytest.UsageError(f"{entry.name} was asked for and cannot be measured here: {error}") from None


def _refuse_data(session: PhaseSession, name: str) -> None:
    """Assert that a dataset has a usable sample in the directory that was given for it, if one was."""
    options, dataset = session.options, find_dataset(name)
    source = options.source(name)
    if source.directory is None:
        return
    reason = dataset.unavailable(source)
    if not reason:
        try:
            dataset.draw(1, options.seed, source)
        except PhaseError as error:
            reason = str(error)
    if reason:
        raise pytest.UsageError(f"{name} was asked for and cannot be measured here: {reason}")


def refuse_places(session: PhaseSession) -> None:
    """Assert that cache and outputs can be written.

    Raises:
        pytest.UsageError: one cannot.
    """
    # A plugin that is imported before pytest loads it is warned about.
    from harness.plugin.outputs import unwritable_output

    cache = session.options.cache
    if problem := unusable(cache):
        raise pytest.UsageError(
            f"--phase-cache: {cache} is not writable ({problem}); choose another with --phase-cache"
        )
    if problem := unwritable_output(session.options):
        raise pytest.UsageError(problem)
