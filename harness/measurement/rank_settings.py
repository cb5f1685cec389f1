"""Settings that cooperating processes must share, and the message that names differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.storage.file_names import text_digest

if TYPE_CHECKING:
    from harness.data.sample import Sample

_TESTS, _SELECTING = "tests", ("-k", "-m", "paths")
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Setting:
    """A value that must be equal in all processes; messages show `shown` instead, which is not compared."""

    value: str
    shown: str = field(default="", compare=False)

    @property
    def text(self) -> str:
        """The value as shown in a message."""
        return self.shown or self.value


def setting(value: Any) -> Setting:
    """Return a value in the notation of the command line; models and datasets appear by name."""
    return Setting(_text(value))


def measurement_settings(
    key: Mapping[str, Any], samples: Sequence[Sample], arguments: Mapping[str, Any]
) -> dict[str, Setting]:
    """Return the settings that the numbers depend on, by name; the exact GPU or CPU model is excluded.

    Args:
        key: the key of the readings, as `reading_cache_key` returns it.
        samples: the samples to measure.
        arguments: the arguments of the measurement that are not in the key.
    """
    environment = {name: value for name, value in key["environment"].items() if name != "device_name"}
    named = {name: key[name] for name in ("batch_size", "weights", "configuration")} | environment | dict(arguments)
    settings = {name.replace("_", " "): setting(value) for name, value in named.items()}
    rows = [(sample.id, sample.instruction, sample.captions, sample.cluster) for sample in samples]
    lines = [f"{row[0]} ({text_digest(repr(row), 8)})" for row in rows]
    return settings | {"samples": Setting("\n".join(lines), f"{len(lines)}")}


def difference(verb: str, by_rank: Sequence[Mapping[str, Setting]]) -> str:
    """Return the message that names the settings that differ between processes; empty if none differs.

    Args:
        verb: the verb of the message, in the past tense, such as "started".
        by_rank: the settings of each process by their names.
    """
    names = dict.fromkeys(name for settings in by_rank for name in settings)
    absent = Setting("none")
    values = {name: [settings.get(name, absent) for settings in by_rank] for name in names}
    differing = [name for name in names if any(value != values[name][0] for value in values[name])]
    # Options that select tests matter only if the tests differ, and other differences explain differing tests.
    if _TESTS not in differing:
        differing = [name for name in differing if name not in _SELECTING]
    elif len(differing) > 1:
        differing.remove(_TESTS)
    if not differing:
        return ""
    sentences = [_sentence(verb, name, values[name]) for name in differing[:_NAMED]]
    further = f"; {len(differing) - _NAMED} more differ" if len(differing) > _NAMED else ""
    return f"{'; '.join(sentences)}{further}: start all processes with the same"


def _sentence(verb: str, name: str, values: Sequence[Setting]) -> str:
    """Return a sentence on the first value that differs from process 0's, with its processes."""
    other = next(value for value in values if value != values[0])
    ranks = [rank for rank, value in enumerate(values) if value == other]
    text, original = _texts(other, values[0])
    return f"{_processes(ranks)} {verb} with {name} {text}, process 0 with {original}"


def _texts(first: Setting, second: Setting) -> tuple[str, str]:
    """Return two values as text; if their texts are equal, each with the first line of the value that differs."""
    if first.text != second.text:
        return first.text, second.text
    lines = first.value.split("\n"), second.value.split("\n")
    row = next((row for row, pair in enumerate(zip(*lines, strict=False)) if pair[0] != pair[1]), 0)
    return f"{first.text}: number {row + 1} is {lines[0][row]}", f"{lines[1][row]}"


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
