"""Settings that processes which measure together must share, and the sentence that names those that differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.storage.file_names import text_digest

if TYPE_CHECKING:
    from harness.data.sample import Sample

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


def setting(value: Any) -> Setting:
    """Return a value, such as an option's, in the words that a user gives it in; models and datasets by their names."""
    return Setting(_text(value))


def measurement_settings(
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
    settings = {name.replace("_", " "): setting(value) for name, value in named.items()}
    rows = [(sample.id, sample.instruction, sample.captions, sample.cluster) for sample in samples]
    lines = [f"{row[0]} ({text_digest(repr(row), 8)})" for row in rows]
    return settings | {"samples": Setting("\n".join(lines), f"{len(lines)}")}


def difference(verb: str, by_rank: Sequence[Mapping[str, Setting]]) -> str:
    """Return the sentence that names the settings which are not the same in all processes; empty where all are.

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


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple | list):
        return ", ".join(map(_text, value)) or "none"
    if value is None:
        return "not given"
    return str(getattr(value, "name", value)) or "none"
