"""Options that may be repeated and have an ini twin: directories of datasets, trusted checkpoints, controls."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from harness import option_values
from harness.data.controls import CONTROLS
from harness.models.registry import ModelEntry
from harness.option_refusals import refuse_trust
from harness.option_values import NO_CONTROL


def data_places(config: pytest.Config) -> dict[str, Path]:
    """Directories by dataset: those of the ini file lie relative to the root directory, options where pytest runs."""
    try:
        ini = [option_values.place(text) for text in config.getini("phase_data")]
    except argparse.ArgumentTypeError as error:
        raise pytest.UsageError(f"phase_data in the ini file: {error}") from None
    here = Path(config.invocation_params.dir)
    given = config.getoption("--phase-data") or []
    return {name: config.rootpath / place for name, place in ini} | {name: here / place for name, place in given}


def trusted_models(config: pytest.Config, named: tuple[ModelEntry, ...]) -> list[ModelEntry]:
    """The checkpoints whose code may run: a command line has to name them for this run, an ini file is for many."""
    given: list[ModelEntry] = config.getoption("--phase-trust-code")
    refuse_trust(given, named)
    try:
        places = [config.rootpath / text for text in config.getini("phase_trust_code")]
        texts = zip(places, config.getini("phase_trust_code"), strict=True)
        return given + [option_values.model(str(place) if place.is_dir() else text) for place, text in texts]
    except argparse.ArgumentTypeError as error:
        raise pytest.UsageError(f"phase_trust_code in the ini file: {error}") from None


def chosen_controls(config: pytest.Config) -> tuple[str, ...]:
    """The controls that are measured, in the order in which they always are."""
    given = config.getoption("--phase-controls")
    if given is None:
        try:
            given = [option_values.control(name) for name in config.getini("phase_controls")]
        except argparse.ArgumentTypeError as error:
            raise pytest.UsageError(f"phase_controls in the ini file: {error}") from None
    if NO_CONTROL in given and set(given) != {NO_CONTROL}:
        raise pytest.UsageError(f"--phase-controls {NO_CONTROL} excludes the others: leave it out")
    return tuple(control for control in CONTROLS if control in given)
