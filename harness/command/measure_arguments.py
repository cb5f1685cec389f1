"""The arguments of `vlm-phase measure` as those of pytest: models, options of the harness, options of pytest."""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.command.usage_problem import UsageProblem, similar_name
from harness.run.option_row import Option
from harness.run.options import OPTIONS

_PREFIX = "phase-"
#: Every option of the harness by its name without the prefix.
OWN_OPTIONS: dict[str, Option] = {option.argument.replace(_PREFIX, "", 1): option for option in OPTIONS.values()}


@dataclass
class MeasureArguments:
    """A parsed command line.

    Attributes:
        models: the models, as the user named them.
        own: the options of the harness with their prefix, each with its value as `--phase-NAME=VALUE`.
        pytest: all other options and their values, unchanged.
        unknown: the names of the options among `pytest`.
    """

    models: list[str] = field(default_factory=list)
    own: list[str] = field(default_factory=list)
    pytest: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def add(self, name: str, value: str | None = None) -> None:
        """Add an option of the harness, named without the prefix.

        Raises:
            UsageProblem: the option has no such value.
        """
        option = OWN_OPTIONS[name]
        if value is not None:
            _check_value(name, value)
        self.own.append(option.argument if value is None else f"{option.argument}={value}")

    def command_line(self) -> list[str]:
        """Return the arguments of pytest, without the cases."""
        model = OPTIONS["models"].argument
        return [*(f"{model}={name}" for name in self.models), *self.own, *self.pytest]

    def similar_options(self) -> list[str]:
        """Return a question for each option of pytest that resembles one of the harness."""
        pairs = [(name, similar_name(name, OWN_OPTIONS)) for name in self.unknown]
        return [f"{name}: did you mean {similar}?" for name, similar in pairs if similar]


def parse_arguments(arguments: Sequence[str]) -> MeasureArguments:
    """Return the arguments sorted by their receiver.

    A word after an option of pytest is passed on, because only pytest knows if it is the option's value.

    Raises:
        UsageProblem: an option of the harness lacks a value, has a wrong one, or has one although it takes none; or a
            model is unknown.
    """
    parsed, queue = MeasureArguments(), deque(arguments)
    while queue:
        word = queue.popleft()
        name, equals, value = word.partition("=")
        name = name.replace(f"--{_PREFIX}", "--", 1)
        option = OWN_OPTIONS.get(name)
        if option is not None:
            parsed.add(name, _value(name, option, value if equals else None, queue))
        elif word.startswith("-"):
            parsed.unknown.append(name)
            parsed.pytest.append(word)
            if not equals and queue and not queue[0].startswith("-"):
                parsed.pytest.append(queue.popleft())
        else:
            _check_value("--model", word)
            parsed.models.append(word)
    return parsed


def _value(name: str, option: Option, value: str | None, queue: deque[str]) -> str | None:
    """Return the value of an option, taken from the queue if it is not given; None for a flag."""
    if not option.metavar:
        if value is not None:
            raise UsageProblem(f"{name} takes no value: write {name}")
        return None
    if value is not None:
        return value
    if not queue or queue[0].startswith("-"):
        raise UsageProblem(f"{name} needs a value: write {name} {option.metavar}")
    return queue.popleft()


def _check_value(name: str, value: str) -> None:
    try:
        OWN_OPTIONS[name].value(value)
    except argparse.ArgumentTypeError as error:
        raise UsageProblem(str(error) if name == "--model" else f"{name}: {error}") from None
