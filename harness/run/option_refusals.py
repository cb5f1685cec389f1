"""Which options cannot go together: said as a usage error before anything is collected."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from harness.models.registry import ModelEntry
from harness.run.option_values import in_memory

# What has no meaning where no baseline is read or written.
_WRITING = ("--phase-update", "--phase-update-new", "--phase-calibrate", "--phase-summary")


def refuse_contradictions(config: pytest.Config) -> None:
    """Turns away update options that exclude each other or mean nothing alone.

    Raises:
        pytest.UsageError: they do.
    """
    update, new = config.getoption("--phase-update"), config.getoption("--phase-update-new")
    if update and new:
        raise pytest.UsageError("--phase-update and --phase-update-new exclude each other: choose one")
    if (drawn := config.getoption("--phase-draw")) and config.getoption("--phase-report") is None:
        raise pytest.UsageError(f"--phase-draw {drawn[0]} names a sample for the report: use it with --phase-report")
    if config.getoption("--phase-summary") and not (update or new):
        raise pytest.UsageError(
            "--phase-summary says how baselines are stored: use it with --phase-update or --phase-update-new"
        )


def refuse_others(option: str, given: Sequence[ModelEntry], named: Sequence[ModelEntry]) -> None:
    """Turn away an option about single checkpoints that is given for another than this run loads.

    Args:
        option: the option.
        given: the models that it was given for.
        named: the models that were named for this run.

    Raises:
        pytest.UsageError: a model was not named, or is not loaded from a checkpoint.
    """
    for entry in given:
        if entry not in named:
            raise pytest.UsageError(
                f"{option} {entry.source or entry.name}: this run names no such model; give the same with "
                "--phase-model or --phase-against, or leave it out"
            )
        if entry.embedded or in_memory(entry):
            raise pytest.UsageError(
                f"{option} {entry.name}: this model is not loaded from a checkpoint of yours; leave it out"
            )


def refuse_models(config: pytest.Config, models: tuple[ModelEntry, ...], against: ModelEntry | None) -> None:
    """Turns away models that cannot be told apart, and what cannot go with the models that were named.

    Raises:
        pytest.UsageError: there are such.
    """
    if against is not None:
        writing = [option for option in _WRITING if config.getoption(option)]
        if not models:
            raise pytest.UsageError("--phase-against: name the models that are held against it with --phase-model")
        if against in models:
            raise pytest.UsageError(
                f"--phase-against {against.name}: this is the --phase-model itself; name two different models"
            )
        if writing:
            raise pytest.UsageError(
                f"{writing[0]} is about stored baselines, and with --phase-against none is read or written: leave one "
                "of the two out"
            )
    named = models if against is None else (*models, against)
    names = [entry.name for entry in named]
    if doubled := [name for name in names if names.count(name) > 1]:
        raise pytest.UsageError(
            f"--phase-model: two checkpoints are both called {doubled[0]!r}, after the last part of their paths, and "
            "would share one baseline; rename one directory"
        )
    if config.getoption("--phase-calibrate") and (given := [entry for entry in named if in_memory(entry)]):
        raise pytest.UsageError(
            f"--phase-calibrate loads a model anew in other data types, and the fixture {given[0].name} gives it in "
            "one: save the model and pass its directory"
        )
