"""A row of the table of options: its help, its parser and its ini option."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from harness.data.datasets import DATASETS
from harness.data.sample import CONTROLS
from harness.models.registry import DEFAULT_DATASETS, DTYPES, ModelEntry, find_model

AS_DECLARED = "auto"
FIXTURE = "fixture:"
NO_CONTROL = "none"
#: The environment variable for the directory of a dataset, by dataset.
VARIABLES = {name: dataset.variable for name, dataset in DATASETS.items() if dataset.variable}
_DTYPES = ("auto", *DTYPES, *DTYPES.values())
_YEAR = 31536000


@dataclass(frozen=True, slots=True)
class Option:
    """A `--phase-` option: a row of the table in `harness.run.options`.

    `metavar` is empty for a flag. `parse` receives a text, and for an ini option also the directory of the file. It
    raises `LookupError` or `ValueError` with the message for the user. `ini` is the default of the ini option, or None
    without an ini option; the command line extends a list. `default` describes the default in `--help` if `ini` is no
    text. `collect` combines the values of a repeatable option. `per_process` is True if cooperating processes may use
    different values, such as devices and paths.
    """

    text: str
    metavar: str = ""
    parse: Callable[..., Any] = str
    ini: str | list[str] | None = None
    default: str = ""
    collect: Callable[[Iterable[Any]], Any] | None = None
    name: str = ""
    per_process: bool = False

    @property
    def argument(self) -> str:
        """The name on the command line."""
        return f"--phase-{self.name.replace('_', '-')}"

    @property
    def ini_name(self) -> str:
        """The name in the ini file."""
        return f"phase_{self.name}"

    def add(self, parser: pytest.Parser, group: pytest.OptionGroup) -> None:
        """Add the option to a group and its ini option to the parser."""
        kind: dict[str, Any] = {"action": "store_true"}
        if self.metavar:
            action = "append" if self.collect else "store"
            kind = {"action": action, "metavar": self.metavar, "type": self.value}
        default = f" Default: {self.default}." * bool(self.default)
        if isinstance(self.ini, str):
            default = f" Default: {self.ini!r}"
        group.addoption(self.argument, help=f"{self.text}.{default}", **kind)
        if self.ini is not None:
            ini_type: Literal["string", "args"] = "string" if isinstance(self.ini, str) else "args"
            parser.addini(self.ini_name, help=f"{self.text} ({self.argument})", type=ini_type, default=self.ini)

    def read(self, config: pytest.Config) -> Any:
        """Return the value from the command line or the ini file.

        Raises:
            pytest.UsageError: the option refuses the text of the ini file.
        """
        value = config.getoption(self.argument)
        if self.ini is not None and (value is None or self.ini == []):
            texts = config.getini(self.ini_name)
            try:
                if isinstance(texts, str):
                    return self.value(texts, config.rootpath)
                value = [self.value(text, config.rootpath) for text in texts] + (value or [])
            except argparse.ArgumentTypeError as error:
                raise pytest.UsageError(f"{self.ini_name} in the ini file: {error}") from None
        return self.collect(value or ()) if self.collect else value

    def value(self, text: str, *root: Path) -> Any:
        """Return the value of a text.

        Raises:
            argparse.ArgumentTypeError: the option refuses it.
        """
        try:
            return self.parse(text, *root)
        except (LookupError, ValueError) as error:
            raise argparse.ArgumentTypeError(str(error)) from None


def row(text: str, metavar: str = "", parse: Callable[..., Any] = str, *defaults: Any, **settings: Any) -> Any:
    """Return a field of a dataclass that declares an `Option`."""
    return field(metadata={"option": Option(text, metavar, parse, *defaults, **settings)})


def model_entry(text: str, root: Path | None = None) -> ModelEntry:
    """Return the entry of a registered name, a checkpoint, or `fixture:NAME`, a model that a fixture returns."""
    if text.startswith(FIXTURE):
        name = text.removeprefix(FIXTURE)
        if not name.isidentifier():
            raise ValueError(f"{text!r} names no fixture: use fixture:NAME, such as fixture:my_vlm")
        return ModelEntry(name, f"the fixture {name}", text, DEFAULT_DATASETS)
    return find_model(str(root / text) if root and (root / text).is_dir() else text)


def is_from_fixture(entry: ModelEntry) -> bool:
    """Return True if a fixture returns the model."""
    return entry.loader.startswith(FIXTURE)


def dataset_directory(text: str, root: Path | None = None) -> tuple[str, Path]:
    """Return a dataset on disk and the directory of its files, from the form NAME=DIR."""
    name, _, directory = text.partition("=")
    if not directory or name not in VARIABLES:
        raise ValueError(f"{text!r} is not NAME=DIR with one of {', '.join(VARIABLES)} as NAME")
    return name, path(directory, root)


def path(text: str, root: Path | None = None) -> Path:
    """Return an absolute path; relative paths start at `root` or the working directory."""
    return (root or Path.cwd()) / Path(text).expanduser()


def cache_directory(text: str, *_: Path) -> Path | None:
    """Return the directory, relative to the working directory; None for an empty text, which requests the default."""
    return path(text) if text else None


def whole_number(least: int) -> Callable[..., int]:
    """Return a parser of whole numbers of at least `least`."""

    def parse(text: str, *_: Path) -> int:
        if not re.fullmatch(r"\d+", text) or int(text) < least:
            raise ValueError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return parse


def seconds(text: str, *_: Path) -> int:
    """Return a number of seconds, up to a year."""
    if (number := whole_number(1)(text)) > _YEAR:
        raise ValueError(f"{text} seconds are more than a year, {_YEAR}")
    return number


def stated_reason(text: str, *_: Path) -> str:
    """Return a reason in one line; it is not empty."""
    if not (reason := " ".join(text.split())):
        raise ValueError("the reason is empty: say why the change is accepted")
    return reason


def sample_count(text: str, *_: Path) -> int | None:
    """Return a number of samples; None for as many as the dataset declares."""
    return None if text == AS_DECLARED else whole_number(2)(text)


def selects_causal(expression: str) -> bool:
    """Return True if an expression of -m names the marker of causal cases, and not to exclude it."""
    return re.search(r"(?<!not )\bcausal\b", expression) is not None


def name_parser(kind: str, names: str, pattern: str) -> Callable[..., str]:
    """Return a parser of names that match a pattern; its message contains their `kind` and `names`."""

    def parse(text: str, *_: Path) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"{text!r} is no {kind}; use {names}")
        return text

    return parse


device_name = name_parser("device", "auto, cpu, cuda, cuda:N or mps", r"auto|cpu|mps|cuda(:\d+)?")
dtype_name = name_parser("dtype", f"one of {', '.join(_DTYPES)}", "|".join(_DTYPES))
control_name = name_parser("control", f"{', '.join(CONTROLS)} or {NO_CONTROL}", "|".join((*CONTROLS, NO_CONTROL)))
