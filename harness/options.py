"""The `--phase-` options: their names, their ini twins, what they may be, and what the user asked for."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.data.controls import CONTROLS
from harness.data.registry import DATASETS, find_dataset
from harness.models.embedded.cache import default_cache
from harness.models.registry import DTYPES, MODELS, find_model

AS_DECLARED = "auto"
NO_CONTROL = "none"
_DTYPES = ("auto", *DTYPES, *DTYPES.values())
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


@dataclass(frozen=True, slots=True)
class Pair:
    """One model on one dataset, by their names."""

    model: str
    dataset: str

    def __str__(self) -> str:
        return f"{self.model}-{self.dataset}"


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for; every field is one `--phase-` option."""

    models: tuple[str, ...]
    datasets: tuple[str, ...]
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
    no_cache: bool
    json: Path | None

    def samples_of(self, pair: Pair) -> int:
        """How many samples of a pair are measured: what was asked for, else what its dataset declares."""
        return find_dataset(pair.dataset).samples if self.samples is None else self.samples

    def pairs(self) -> list[Pair]:
        """The pairs that are measured: the chosen models on the chosen datasets, by default each model on its own."""
        models = self.models or tuple(MODELS)
        return [
            Pair(model, dataset)
            for model in models
            for dataset in (self.datasets or find_model(model).datasets)
            if dataset in DATASETS
        ]


def _known(find: Callable[[str], Any]) -> Callable[[str], str]:
    def name(text: str) -> str:
        try:
            find(text)
        except LookupError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text

    return name


def _number(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not re.fullmatch(r"\d+", text) or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return number


def _samples(text: str) -> int | None:
    return None if text == AS_DECLARED else _number(2)(text)


def _device(text: str) -> str:
    if not _DEVICE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no device; use auto, cpu, cuda, cuda:N or mps")
    return text


def _dtype(text: str) -> str:
    if text not in _DTYPES:
        raise argparse.ArgumentTypeError(f"{text!r} is no dtype; use one of {', '.join(_DTYPES)}")
    return text


def _control(text: str) -> str:
    if text not in (*CONTROLS, NO_CONTROL):
        raise argparse.ArgumentTypeError(f"{text!r} is no control; use {', '.join(CONTROLS)} or {NO_CONTROL}")
    return text


# Name, parser, default, help. Each has an ini twin phase_<name>; the command line wins.
_VALUES: tuple[tuple[str, str, Callable[[str], Any], str, str], ...] = (
    ("samples", "N", _samples, AS_DECLARED, "samples per pair, or as many as the dataset declares; the paper has 400"),
    ("seed", "N", _number(0), "0", "which samples are drawn"),
    ("device", "NAME", _device, "auto", "auto (a GPU where there is one), cpu, cuda, cuda:N or mps"),
    (
        "dtype",
        "NAME",
        _dtype,
        "auto",
        "fp32, bf16, fp16 or torch's names; auto: fp32 for embedded models and on a CPU, else bf16",
    ),
    ("batch-size", "N", _number(1), "8", "samples per forward pass"),
    ("baselines", "DIR", str, "baselines", "directory of the stored baselines, relative to the root directory"),
    ("cache", "DIR", str, "", "directory for weights and readings; by default the user's cache directory"),
)
_FLAGS: tuple[tuple[str, str], ...] = (
    ("update", "write new and changed baselines; the summary lists them"),
    ("update-new", "write missing baselines only"),
    (
        "summary",
        "with an update option: store mean, covariance and number of samples only, no value of any sample",
    ),
    (
        "calibrate",
        "measure the baselines' samples again in other data types, attention backends, batches and threads, and store "
        "noise, margins and power with them",
    ),
    ("strict-evidence", "fail where the evidence does not decide, instead of an expected failure"),
    ("no-cache", "keep no readings and use none; weights are still cached"),
)


def add_options(parser: pytest.Parser) -> None:
    """Adds the `--phase-` options and their ini twins."""
    group = parser.getgroup("phase", "phases of vision-language models")
    for name, find, known in (("model", find_model, MODELS), ("dataset", find_dataset, DATASETS)):
        group.addoption(
            f"--phase-{name}",
            action="append",
            default=[],
            metavar="NAME",
            type=_known(find),
            help=f"only this {name}; may be repeated. Known: {', '.join(sorted(known))}.",
        )
    text = f"measure this control beside every pair: {', '.join(CONTROLS)} or {NO_CONTROL}; may be repeated"
    group.addoption("--phase-controls", action="append", metavar="NAME", type=_control, help=f"{text}. Default: all.")
    parser.addini("phase_controls", help=f"{text} (--phase-controls)", type="args", default=list(CONTROLS))
    for name, metavar, kind, default, text in _VALUES:
        group.addoption(
            f"--phase-{name}", metavar=metavar, type=kind, default=None, help=f"{text}. Default: {default!r}"
        )
        parser.addini(f"phase_{name.replace('-', '_')}", help=f"{text} (--phase-{name})", default=default)
    for name, text in _FLAGS:
        group.addoption(f"--phase-{name}", action="store_true", default=False, help=f"{text}.")
    group.addoption("--phase-json", metavar="FILE", default=None, help="write curves, verdicts and provenance to FILE.")


def read_options(config: pytest.Config) -> Options:
    """What the user asked for, on the command line or in the ini file.

    Raises:
        pytest.UsageError: an ini value that its option would not take, or options that exclude each other.
    """
    values: dict[str, Any] = {}
    for name, _, kind, _, _ in _VALUES:
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
    values["cache"] = here / Path(values["cache"]).expanduser() if values["cache"] else default_cache()
    written = config.getoption("--phase-json")
    values["controls"] = _controls(config)
    if config.getoption("--phase-update") and config.getoption("--phase-update-new"):
        raise pytest.UsageError("--phase-update and --phase-update-new exclude each other: choose one")
    if config.getoption("--phase-summary") and not (
        config.getoption("--phase-update") or config.getoption("--phase-update-new")
    ):
        raise pytest.UsageError(
            "--phase-summary says how baselines are stored: use it with --phase-update or --phase-update-new"
        )
    flags = {name.replace("-", "_"): config.getoption(f"--phase-{name}") for name, _ in _FLAGS}
    return Options(
        models=tuple(config.getoption("--phase-model")),
        datasets=tuple(config.getoption("--phase-dataset")),
        json=None if written is None else here / written,
        **values,
        **flags,
    )


def _controls(config: pytest.Config) -> tuple[str, ...]:
    given = config.getoption("--phase-controls")
    if given is None:
        try:
            given = [_control(name) for name in config.getini("phase_controls")]
        except argparse.ArgumentTypeError as error:
            raise pytest.UsageError(f"phase_controls in the ini file: {error}") from None
    if NO_CONTROL in given and set(given) != {NO_CONTROL}:
        raise pytest.UsageError(f"--phase-controls {NO_CONTROL} excludes the others: leave it out")
    return tuple(control for control in CONTROLS if control in given)
