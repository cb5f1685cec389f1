"""Options that may be repeated and have an ini twin: directories of datasets, single checkpoints, controls."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from harness.data.controls import CONTROLS
from harness.models.registry import ModelEntry
from harness.run import option_values
from harness.run.option_refusals import refuse_others
from harness.run.option_values import NO_CONTROL


def data_places(config: pytest.Config) -> dict[str, Path]:
    """Directories by dataset: those of the ini file lie relative to the root directory, options where pytest runs."""
    try:
        ini = [option_values.place(text) for text in config.getini("phase_data")]
    except argparse.ArgumentTypeError as error:
        raise pytest.UsageError(f"phase_data in the ini file: {error}") from None
    here = Path(config.invocation_params.dir)
    given = config.getoption("--phase-data") or []
    return {name: config.rootpath / place for name, place in ini} | {name: here / place for name, place in given}


def named_checkpoints(config: pytest.Config, name: str, named: tuple[ModelEntry, ...]) -> list[ModelEntry]:
    """Return the checkpoints that an option about single ones is given for, on the command line or in the ini file.

    A command line has to name them for this run too, an ini file is for many runs.

    Args:
        config: pytest's configuration.
        name: the option without its prefix.
        named: the models that were named for this run.

    Raises:
        pytest.UsageError: a checkpoint of the command line was not named for this run, or one of the ini file is none.
    """
    given: list[ModelEntry] = config.getoption(f"--phase-{name}")
    refuse_others(f"--phase-{name}", given, named)
    ini = f"phase_{name.replace('-', '_')}"
    texts: list[str] = config.getini(ini)
    try:
        return given + [
            option_values.model(str(path) if (path := config.rootpath / text).is_dir() else text) for text in texts
        ]
    except argparse.ArgumentTypeError as error:
        raise pytest.UsageError(f"{ini} in the ini file: {error}") from None


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
