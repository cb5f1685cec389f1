"""The table of the `--phase-` options; each field of `Options` is a row with help, parser and default."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest

from harness.data.datasets import DATASETS, find_dataset
from harness.data.sample import CONTROL_SAMPLES, CONTROLS, Source
from harness.interface import in_current_words
from harness.models.registry import MODELS, ModelEntry, find_model
from harness.profile.pair import Pair
from harness.run.option_row import (
    AS_DECLARED,
    NO_CONTROL,
    VARIABLES,
    Option,
    cache_directory,
    control_name,
    dataset_directory,
    device_name,
    dtype_name,
    is_from_fixture,
    model_entry,
    path,
    row,
    sample_count,
    seconds,
    selects_causal,
    stated_reason,
    whole_number,
)
from harness.storage.cache_directory import CacheError, default_cache

_ON_DISK = ", ".join(f"{name} (or {variable})" for name, variable in VARIABLES.items())
_NAMED = "named as in --phase-model or --phase-against; may be repeated"
# Options that write stored baselines or known differences.
_WRITING = ("update", "update_new", "calibrate", "summary", "accept_claims")


def _distinct(entries: Iterable[ModelEntry]) -> tuple[ModelEntry, ...]:
    return tuple(dict.fromkeys(entries))


def _in_order(controls: Iterable[str]) -> tuple[str, ...]:
    names = set(controls)
    if NO_CONTROL in names and len(names) > 1:
        raise pytest.UsageError(in_current_words(f"--phase-controls {NO_CONTROL} excludes the others: remove it"))
    return tuple(name for name in CONTROLS if name in names)


@dataclass(frozen=True, slots=True)
class Options:
    """The values of all options."""

    # Each row: the help, the name of the argument, its parser, the default of the ini file and its description.
    # fmt: off
    models: tuple[ModelEntry, ...] = row(
        "measure only this model: a name, a directory of save_pretrained, a repository ORG/NAME, or fixture:NAME for a "
        f"model in memory that a fixture returns; may be repeated. Known: {', '.join(sorted(MODELS))}",
        "MODEL", model_entry, None, "every known model that is available", _distinct, name="model")
    against: ModelEntry | None = row(
        "compare each --phase-model with this model instead of stored baselines; both are measured in the same run on "
        "the same samples",
        "MODEL", model_entry)
    datasets: tuple[str, ...] = row(
        f"measure only this dataset; may be repeated. Known: {', '.join(sorted(DATASETS))}",
        "NAME", lambda text: find_dataset(text).name, None, "the datasets of each model", tuple, name="dataset")
    trust_code: tuple[ModelEntry, ...] = row(
        f"run the Python code of this checkpoint, {_NAMED}",
        "MODEL", model_entry, [], "no code of checkpoints is run", tuple)
    allow_unused_weights: tuple[ModelEntry, ...] = row(
        f"measure this checkpoint although its model does not use all weights in its files, {_NAMED}",
        "MODEL", model_entry, [], "such a checkpoint is refused", tuple)
    data: Mapping[str, Path] = row(
        f"directory of a dataset's files; may be repeated. Known: {_ON_DISK}",
        "NAME=DIR", dataset_directory, [], "the hub's local cache", dict, per_process=True)
    controls: tuple[str, ...] = row(
        f"measure this control with every pair: {', '.join(CONTROLS)} or {NO_CONTROL}; may be repeated",
        "NAME", control_name, list(CONTROLS), "all", _in_order)
    control_samples: int = row(
        "samples of the noise control, the first of each pair; its interval needs no more", "N", whole_number(2),
        str(CONTROL_SAMPLES))
    samples: int | None = row(
        "samples per pair, or auto for as many as the dataset declares; the paper uses 400",
        "N", sample_count, AS_DECLARED)
    seed: int = row("seed of the draw of samples", "N", whole_number(0), "0")
    device: str = row("auto (a GPU if there is one), cpu, cuda, cuda:N or mps", "NAME", device_name, "auto",
        per_process=True)
    dtype: str = row(
        "fp32, bf16, fp16 or torch's names; auto: fp32 for bundled models and on a CPU, else bf16",
        "NAME", dtype_name, "auto")
    batch_size: int = row("samples per forward pass", "N", whole_number(1), "8")
    baselines: Path = row("directory of the stored baselines, relative to the root directory", "DIR", path, "baselines",
        per_process=True)
    cache: Path = row(
        "directory of cached weights and readings; by default the user's cache directory", "DIR", cache_directory, "",
        per_process=True)
    process_timeout: int = row(
        "time that one of several processes (torchrun) waits for another before it fails",
        "SECONDS", seconds, "21600", per_process=True)
    update: bool = row("write new and changed baselines; the summary lists them")
    update_new: bool = row("write only missing baselines")
    reason: str | None = row(
        "with --phase-update: why a changed baseline is accepted; it is kept in the baseline's history",
        "TEXT", stated_reason)
    summary: bool = row(
        "with an update option: store only mean, covariance and number of samples, and no values of samples")
    calibrate: bool = row(
        "measure the baselines' samples again in other data types, attention backends, batch sizes and thread counts; "
        "store noise, margins and power")
    accept_claims: bool = row(
        "write the failing claims of the measured pairs with their measured reasons to the known differences beside "
        "the baselines, and remove those that hold")
    knockout: bool = row(
        "measure how much less likely captions become if later tokens cannot attend to the image in a window of "
        "layers, and run the causal cases, which judge where the image enters; -m causal does the same")
    knockout_window: int | None = row(
        "with --phase-knockout: number of layers in a window", "N", whole_number(1), None, "a sixth of the depth")
    rephrase: bool = row(
        "measure each pair once more with another instruction of the same meaning; the report says whether boundaries "
        "and claims survive")
    strict_claims: bool = row(
        "report failing claims as failures, also those of pairs without baseline and known differences")
    strict_evidence: bool = row("report inconclusive verdicts as failures instead of expected failures")
    no_cache: bool = row("do not cache readings or use cached ones; weights are still cached")
    download: bool = row("download weights and data missing from the hub's local cache; their size is reported first")
    draw: tuple[str, ...] = row(
        "show this sample in full in the report, besides the first two of each pair; may be repeated",
        "ID", str, None, "", tuple)
    report: Path | None = row(
        "write a page of figures and verdicts to DIR/index.html, with its figures and data as files", "DIR", path,
        per_process=True)
    json: Path | None = row("write curves, verdicts and provenance to FILE", "FILE", path, per_process=True)
    markdown: Path | None = row("append a Markdown summary to FILE, such as $GITHUB_STEP_SUMMARY", "FILE", path,
        per_process=True)
    # fmt: on

    def samples_of(self, pair: Pair) -> int:
        """Return the number of samples of a pair: the option's, else the number that its model or dataset declares.

        Models that are compared with each other are measured on the same samples.
        """
        if self.samples is not None:
            return self.samples
        entries = (self.model(pair.model),) if self.against is None else self.named_models()
        return max(entry.samples.get(pair.dataset, find_dataset(pair.dataset).samples) for entry in entries)

    def controls_of(self, pair: Pair) -> tuple[str, ...]:
        """Return the controls that are measured with a pair; empty if the dataset is for regression only."""
        return () if find_dataset(pair.dataset).regression_only else self.controls

    def pairs(self) -> list[Pair]:
        """Return the pairs to measure.

        Named models are measured on the named datasets, by default on their own. Without named models, every registered
        model is measured on its own datasets, restricted to the named ones.
        """
        named = [
            Pair(entry.name, dataset)
            for entry in (self.models or tuple(MODELS.values()))
            for dataset in (self.datasets or entry.datasets)
            if self.models or dataset in entry.datasets
        ]
        return [pair for pair in dict.fromkeys(named) if pair.dataset in DATASETS]

    def model(self, name: str) -> ModelEntry:
        """Return the entry of a pair's model."""
        return next((entry for entry in self.named_models() if entry.name == name), None) or find_model(name)

    def named_models(self) -> tuple[ModelEntry, ...]:
        """Return the models named by options, the --phase-against model last."""
        return self.models if self.against is None else (*self.models, self.against)

    def reference_pair(self, pair: Pair) -> Pair | None:
        """Return the pair that --phase-against compares a pair with; None without the option."""
        return None if self.against is None else Pair(self.against.name, pair.dataset)

    def model_argument(self, name: str) -> str:
        """Return the `--phase-model` argument of a model: its registered name, else its source."""
        entry = self.model(name)
        return name if name in MODELS else entry.loader if is_from_fixture(entry) else entry.source

    def model_fixtures(self) -> list[str]:
        """Return the fixtures of models in memory, which are also the models' names."""
        return [entry.name for entry in self.named_models() if is_from_fixture(entry)]

    def trusted_models(self) -> list[str]:
        """Return the checkpoints whose own code is run, as named by the user."""
        return [self.model_argument(entry.name) for entry in self.named_models() if entry.trusted]

    def is_bundled(self, pair: Pair) -> bool:
        """Return True if the model and the dataset of a pair are part of the project."""
        return self.model(pair.model).bundled and not find_dataset(pair.dataset).variable

    def source(self, dataset: str) -> Source:
        """Return the location of a dataset's files: by option, ini file or variable, else the hub's cache."""
        return find_dataset(dataset).source(self.data.get(dataset), download=self.download)

    def unavailable(self, pair: Pair) -> tuple[str, bool]:
        """Return the reason why a pair is unavailable, or "", and True if the missing part was requested by name."""
        entry = self.model(pair.model)
        if not is_from_fixture(entry) and (reason := entry.unavailable(download=self.download)):
            return f"{pair.model}: {reason}", bool(self.models)
        source = self.source(pair.dataset)
        if reason := find_dataset(pair.dataset).unavailable(source):
            return f"{pair.dataset}: {reason}", source.directory is not None or pair.dataset in self.datasets
        return "", False


#: Every option by the field that holds its value, in the order of `--help`.
OPTIONS: dict[str, Option] = {
    field.name: replace(option := field.metadata["option"], name=option.name or field.name) for field in fields(Options)
}


def add_options(parser: pytest.Parser) -> None:
    """Add the `--phase-` options and their ini options."""
    group = parser.getgroup("phase", "phases of vision-language models")
    for option in OPTIONS.values():
        option.add(parser, group)


def read_options(config: pytest.Config) -> Options:
    """Return the options of the command line and the ini file.

    Raises:
        pytest.UsageError: an invalid ini value, contradicting options, or no usable cache directory.
    """
    values = {name: option.read(config) for name, option in OPTIONS.items()}
    try:
        values["cache"] = values["cache"] or default_cache()
    except CacheError as error:
        raise pytest.UsageError(str(error)) from None
    values["knockout"] = values["knockout"] or selects_causal(config.getoption("markexpr", ""))
    options = Options(**values)
    for problem in _contradictions(options, config):
        raise pytest.UsageError(in_current_words(problem))

    def allowed(entry: ModelEntry) -> ModelEntry:
        trusted, unused = entry in options.trust_code, entry in options.allow_unused_weights
        return replace(entry, trusted=trusted, unused_weights=unused)

    against = options.against and allowed(options.against)
    return replace(options, models=tuple(map(allowed, options.models)), against=against)


def _contradictions(options: Options, config: pytest.Config) -> Iterator[str]:
    """Yield the contradictions between options."""
    named, against = options.named_models(), options.against
    if options.update and options.update_new:
        yield "--phase-update and --phase-update-new exclude each other: choose one"
    if options.draw and not options.report:
        yield f"--phase-draw {options.draw[0]} names a sample for the report: use it with --phase-report"
    if options.summary and not (options.update or options.update_new):
        yield "--phase-summary changes how baselines are stored: use it with --phase-update or --phase-update-new"
    if options.knockout_window and not options.knockout:
        yield "--phase-knockout-window sets the windows of a knockout: use it with --phase-knockout"
    if options.reason and not options.update:
        yield "--phase-reason states why a changed baseline is accepted: use it with --phase-update"
    if options.accept_claims and options.strict_claims:
        yield "--phase-accept-claims and --phase-strict-claims exclude each other: choose one"
    if against is not None and not options.models:
        yield "--phase-against: name the models to compare with it with --phase-model"
    if against in options.models:
        yield f"--phase-against {named[-1].name}: this is the --phase-model itself; name two different models"
    for name in _WRITING if against is not None else ():
        if getattr(options, name):
            yield (
                f"{OPTIONS[name].argument} concerns stored baselines, and --phase-against reads and writes none: "
                "remove one of the two"
            )
    for name, count in Counter(entry.name for entry in named).items():
        if count > 1:
            yield (
                f"--phase-model: two checkpoints are both called {name!r}, after the last part of their paths, and "
                "would share one baseline; rename one directory"
            )
    for name in options.model_fixtures() if options.calibrate else ():
        yield (
            f"--phase-calibrate loads a model again in other data types, but the fixture {name} returns it in one: "
            "save the model and pass its directory"
        )
    # An ini file may name checkpoints of other runs.
    for argument in (OPTIONS[name].argument for name in ("trust_code", "allow_unused_weights")):
        for entry in config.getoption(argument) or ():
            if entry not in named:
                yield (
                    f"{argument} {entry.source or entry.name}: this run has no such model; use the same name in "
                    "--phase-model or --phase-against, or remove the option"
                )
            if entry.bundled or is_from_fixture(entry):
                yield f"{argument} {entry.name}: this model is not loaded from your checkpoint; remove the option"
