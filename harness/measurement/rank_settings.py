"""Settings that processes which measure together must share, and the sentence that names those that differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from harness.storage.file_names import text_digest

if TYPE_CHECKING:
    import pytest

    from harness.data.sample import Sample
    from harness.run.options import Options

# Options that may differ: each process has a GPU of its own, paths are those of its machine, the first alone writes.
# Data and weights are compared where they are read, devices by their kind.
MAY_DIFFER = ("device", "data", "baselines", "cache", "process_timeout", "json", "markdown", "report")
_FIELDS = {"models": "model", "datasets": "dataset"}
_LIBRARIES = ("vlm-phase-harness", "torch", "transformers", "numpy")
_TESTS, _CHOOSING = "tests", ("-k", "-m", "paths")
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Setting:
    """A value that must be the same in all processes; `shown` stands for it in a message and need not be the same."""

    value: str
    shown: str = field(default="", compare=False)

    @property
    def text(self) -> str:
        """The value as a message has it."""
        return self.shown or self.value


def option_settings(options: Options, device: str) -> dict[str, Setting]:
    """The options that must be the same in all processes, and the versions of libraries, by name.

    Args:
        options: what the user asked for.
        device: the kind of device of this process.
    """
    settings = {
        f"--phase-{_FIELDS.get(field.name, field.name).replace('_', '-')}": getattr(options, field.name)
        for field in fields(options)
        if field.name not in MAY_DIFFER
    }
    named = options.named()
    settings["--phase-trust-code"] = [entry for entry in named if entry.trusted]
    settings["--phase-allow-unused-weights"] = [entry for entry in named if entry.unused_weights]
    settings["device"] = device
    return {name: Setting(_text(value)) for name, value in settings.items()} | {
        name: Setting(version(name)) for name in _LIBRARIES
    }


def selection_settings(config: pytest.Config, items: Sequence[pytest.Item]) -> dict[str, Setting]:
    """The tests in which processes meet, with what chose them, and the number of failures that ends a run."""
    # A user's other tests may differ, such as those of a set's elements.
    ids = [item.nodeid for item in items if _meets(item)]
    return {
        "--maxfail": Setting(_text(config.getoption("maxfail", 0))),
        "-k": Setting(_text(config.getoption("keyword", ""))),
        "-m": Setting(_text(config.getoption("markexpr", ""))),
        "paths": Setting(" ".join(map(str, config.args))),
        _TESTS: Setting("\n".join(ids), f"{len(ids)}"),
    }


def _meets(item: pytest.Item) -> bool:
    """Return True if processes may meet in a test."""
    fixtures = {"pair", "phase"}.intersection(getattr(item, "fixturenames", ()))
    return bool(fixtures) or item.get_closest_marker("timing") is not None


def measured_settings(
    key: Mapping[str, Any], samples: Sequence[Sample], asked: Mapping[str, Any]
) -> dict[str, Setting]:
    """What a measurement's numbers depend on, by name; the model of a GPU or CPU may differ, its kind may not.

    Args:
        key: that of the readings, as `store_key` returns it.
        samples: what is measured.
        asked: arguments of the measurement that the key does not hold.
    """
    environment = {name: value for name, value in key["environment"].items() if name != "device_name"}
    named = {name: key[name] for name in ("batch_size", "weights", "configuration")} | environment | dict(asked)
    settings = {name.replace("_", " "): Setting(_text(value)) for name, value in named.items()}
    lines = [f"{sample.id} ({_digest(sample)})" for sample in samples]
    return settings | {"samples": Setting("\n".join(lines), f"{len(lines)}")}


def difference(verb: str, by_rank: Sequence[Mapping[str, Setting]]) -> str:
    """The sentence that names the settings which are not the same in all processes; empty where all are.

    Args:
        verb: what a process does with its settings, in the past, as in "started".
        by_rank: the settings of each process by their names.
    """
    names = dict.fromkeys(name for settings in by_rank for name in settings)
    absent = Setting("none")
    values = {name: [settings.get(name, absent) for settings in by_rank] for name in names}
    differing = [name for name in names if any(value != values[name][0] for value in values[name])]
    # The tests say whether what chose them matters, and whatever else differs explains why they do.
    if _TESTS not in differing:
        differing = [name for name in differing if name not in _CHOOSING]
    elif len(differing) > 1:
        differing.remove(_TESTS)
    if not differing:
        return ""
    sentences = [_sentence(verb, name, values[name]) for name in differing[:_NAMED]]
    more = f"; {len(differing) - _NAMED} more differ" if len(differing) > _NAMED else ""
    return f"{'; '.join(sentences)}{more}: start all processes with the same"


def _sentence(verb: str, name: str, values: Sequence[Setting]) -> str:
    """Name the first value that is not process 0's, and the processes that have it."""
    other = next(value for value in values if value != values[0])
    ranks = [rank for rank, value in enumerate(values) if value == other]
    text, original = _texts(other, values[0])
    return f"{_processes(ranks)} {verb} with {name} {text}, process 0 with {original}"


def _texts(one: Setting, other: Setting) -> tuple[str, str]:
    """Two values as a message has them; of long ones that look alike the first lines that differ."""
    if one.text != other.text:
        return one.text, other.text
    lines = one.value.split("\n"), other.value.split("\n")
    row = next((row for row, pair in enumerate(zip(*lines, strict=False)) if pair[0] != pair[1]), 0)
    return f"{one.text}: number {row + 1} is {lines[0][row]}", f"{lines[1][row]}"


def _processes(ranks: Sequence[int]) -> str:
    if len(ranks) == 1:
        return f"process {ranks[0]}"
    shown = [str(rank) for rank in ranks[:_NAMED]] + [f"{len(ranks) - _NAMED} more"] * (len(ranks) > _NAMED)
    return f"processes {', '.join(shown[:-1])} and {shown[-1]}"


def _digest(sample: Sample) -> str:
    return text_digest(repr((sample.id, sample.instruction, sample.captions, sample.cluster)), 8)


def _text(value: Any) -> str:
    """An option's value as a user gives it; models and datasets by their names."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple | list):
        return ", ".join(map(_text, value)) or "none"
    if value is None:
        return "not given"
    return str(getattr(value, "name", value)) or "none"
