"""The `--phase-` options: their names, their ini twins, what they may be, and what the user asked for."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from harness.data.controls import CONTROLS
from harness.data.datasets import DATASETS, find_dataset
from harness.data.sample import Source
from harness.models.registry import MODELS, ModelEntry, find_model
from harness.profile.pair import Pair
from harness.run import option_values
from harness.run.option_refusals import refuse_contradictions, refuse_models
from harness.run.option_rows import FLAGS, OF_CHECKPOINTS, VALUES, WRITTEN
from harness.run.option_values import NO_CONTROL, in_memory
from harness.run.repeated_options import chosen_controls, data_places, named_checkpoints


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for; every field is one `--phase-` option."""

    models: tuple[ModelEntry, ...]
    against: ModelEntry | None
    datasets: tuple[str, ...]
    data: Mapping[str, Path]
    download: bool
    samples: int | None
    seed: int
    device: str
    dtype: str
    batch_size: int
    controls: tuple[str, ...]
    baselines: Path
    update: bool
    update_new: bool
    summary: bool
    calibrate: bool
    strict_evidence: bool
    cache: Path
    process_timeout: int
    no_cache: bool
    draw: tuple[str, ...]
    json: Path | None
    markdown: Path | None
    report: Path | None

    def samples_of(self, pair: Pair) -> int:
        """How many samples of a pair are measured: what was asked for, else what its model or its dataset declares.

        Models that are held against each other are measured on the same samples.
        """
        if self.samples is not None:
            return self.samples
        entries = (self.model(pair.model),) if self.against is None else self.named()
        return max(entry.samples.get(pair.dataset, find_dataset(pair.dataset).samples) for entry in entries)

    def controls_of(self, pair: Pair) -> tuple[str, ...]:
        """Return the controls that are measured beside a pair: none where the dataset serves regression only."""
        return () if find_dataset(pair.dataset).regression_only else self.controls

    def pairs(self) -> list[Pair]:
        """The pairs that are measured.

        Named models on named datasets; where only one of the two is named, with those that belong to it; by default
        every model on its own datasets.
        """
        named = [
            Pair(entry.name, dataset)
            for entry in (self.models or tuple(MODELS.values()))
            for dataset in (self.datasets or entry.datasets)
            if self.models or dataset in entry.datasets
        ]
        return [pair for pair in dict.fromkeys(named) if pair.dataset in DATASETS]

    def model(self, name: str) -> ModelEntry:
        """The entry of a pair's model."""
        return next((entry for entry in self.named() if entry.name == name), None) or find_model(name)

    def named(self) -> tuple[ModelEntry, ...]:
        """The models that were asked for by name, the one that the others are held against last."""
        return self.models if self.against is None else (*self.models, self.against)

    def argument(self, name: str) -> str:
        """What `--phase-model` takes for a pair's model: its name where it is registered, else where it comes from."""
        entry = self.model(name)
        return name if name in MODELS else entry.loader if in_memory(entry) else entry.source

    def fixtures(self) -> list[str]:
        """The fixtures that models in memory come from, which are also those models' names."""
        return [entry.name for entry in self.named() if in_memory(entry)]

    def trusted(self) -> list[str]:
        """The checkpoints whose own code is run, as they were named."""
        return [self.argument(entry.name) for entry in self.named() if entry.trusted]

    def embedded(self, pair: Pair) -> bool:
        """Whether a pair needs nothing but what the project brings."""
        return self.model(pair.model).embedded and not find_dataset(pair.dataset).variable

    def source(self, dataset: str) -> Source:
        """Where a dataset's files are: by option, ini file or environment variable, else in the hub's cache."""
        return find_dataset(dataset).source(self.data.get(dataset), download=self.download)

    def unavailable(self, pair: Pair) -> tuple[str, bool] | None:
        """Why a pair cannot be measured here, with the remedy, and whether what is missing was asked for by name."""
        entry = self.model(pair.model)
        if not in_memory(entry) and (reason := entry.unavailable(download=self.download)):
            return f"{pair.model}: {reason}", bool(self.models)
        source = self.source(pair.dataset)
        if reason := find_dataset(pair.dataset).unavailable(source):
            return f"{pair.dataset}: {reason}", source.directory is not None or pair.dataset in self.datasets
        return None


def add_options(parser: pytest.Parser) -> None:
    """Adds the `--phase-` options and their ini twins."""
    group = parser.getgroup("phase", "phases of vision-language models")
    group.addoption(
        "--phase-model",
        action="append",
        default=[],
        metavar="MODEL",
        type=option_values.model,
        help="only this model: a name, a directory that save_pretrained wrote, a repository ORG/NAME, or fixture:NAME "
        f"for a model in memory that a fixture returns; may be repeated. Known: {', '.join(sorted(MODELS))}. "
        "Default: every known one that can be had here.",
    )
    group.addoption(
        "--phase-against",
        metavar="MODEL",
        type=option_values.model,
        default=None,
        help="in place of the stored baselines, hold each --phase-model against this one, measured in the same run on "
        "the same samples; the summary says where they differ.",
    )
    group.addoption(
        "--phase-dataset",
        action="append",
        default=[],
        metavar="NAME",
        type=option_values.dataset,
        help=f"only this dataset; may be repeated. Known: {', '.join(sorted(DATASETS))}. Default: those of each model.",
    )
    for name, purpose, default in OF_CHECKPOINTS:
        text = f"{purpose}, as it was named with --phase-model or --phase-against; may be repeated"
        group.addoption(
            f"--phase-{name}",
            action="append",
            default=[],
            metavar="MODEL",
            type=option_values.model,
            help=f"{text}. Default: {default}.",
        )
        parser.addini(f"phase_{name.replace('-', '_')}", help=f"{text} (--phase-{name})", type="args", default=[])
    on_disk = ", ".join(f"{name} (or {dataset.variable})" for name, dataset in DATASETS.items() if dataset.variable)
    text = f"directory of a dataset's files; may be repeated. Known: {on_disk}"
    group.addoption(
        "--phase-data",
        action="append",
        metavar="NAME=DIR",
        type=option_values.place,
        help=f"{text}. Default: the hub's local cache.",
    )
    parser.addini("phase_data", help=f"{text} (--phase-data)", type="args", default=[])
    text = f"measure this control beside every pair: {', '.join(CONTROLS)} or {NO_CONTROL}; may be repeated"
    group.addoption(
        "--phase-controls", action="append", metavar="NAME", type=option_values.control, help=f"{text}. Default: all."
    )
    parser.addini("phase_controls", help=f"{text} (--phase-controls)", type="args", default=list(CONTROLS))
    for name, metavar, kind, default, text in VALUES:
        group.addoption(
            f"--phase-{name}", metavar=metavar, type=kind, default=None, help=f"{text}. Default: {default!r}"
        )
        parser.addini(f"phase_{name.replace('-', '_')}", help=f"{text} (--phase-{name})", default=default)
    for name, text in FLAGS:
        group.addoption(f"--phase-{name}", action="store_true", default=False, help=f"{text}.")
    text = "show this sample in full in the report, besides the first two of each pair; may be repeated"
    group.addoption("--phase-draw", action="append", default=[], metavar="ID", help=f"{text}.")
    for name, metavar, text in WRITTEN:
        group.addoption(f"--phase-{name}", metavar=metavar, default=None, help=f"{text}.")


def read_options(config: pytest.Config) -> Options:
    """What the user asked for, on the command line or in the ini file.

    Raises:
        pytest.UsageError: an ini value that its option would not take, or options that exclude each other.
    """
    values: dict[str, Any] = {}
    for name, _, kind, _, _ in VALUES:
        given = config.getoption(f"--phase-{name}")
        ini = f"phase_{name.replace('-', '_')}"
        if given is None:
            try:
                given = kind(str(config.getini(ini)))
            except argparse.ArgumentTypeError as error:
                raise pytest.UsageError(f"{ini} in the ini file: {error}") from None
        values[name.replace("-", "_")] = given
    here = Path(config.invocation_params.dir)
    baselines = config.getoption("--phase-baselines")
    values["baselines"] = here / baselines if baselines is not None else config.rootpath / values["baselines"]
    values["cache"] = here / Path(values["cache"]).expanduser() if values["cache"] else option_values.default_place()
    for name, _, _ in WRITTEN:
        written = config.getoption(f"--phase-{name}")
        values[name] = None if written is None else here / Path(written).expanduser()
    values |= {"controls": chosen_controls(config), "draw": tuple(config.getoption("--phase-draw"))}
    models, against = tuple(dict.fromkeys(config.getoption("--phase-model"))), config.getoption("--phase-against")
    refuse_contradictions(config)
    refuse_models(config, models, against)
    named = models if against is None else (*models, against)
    trusted, unused = (named_checkpoints(config, name, named) for name, _, _ in OF_CHECKPOINTS)

    def as_allowed(entry: ModelEntry) -> ModelEntry:
        return replace(entry, trusted=entry in trusted, unused_weights=entry in unused)

    flags = {name.replace("-", "_"): config.getoption(f"--phase-{name}") for name, _ in FLAGS}
    return Options(
        models=tuple(map(as_allowed, models)),
        against=against and as_allowed(against),
        datasets=tuple(config.getoption("--phase-dataset")),
        data=data_places(config),
        **values,
        **flags,
    )
