"""The interface that the user calls: Python, pytest or the command `vlm-phase`.

Messages name options and commands of the interface in use: an error from Python speaks of arguments, an error from
pytest of `--phase-` options.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interface:
    """How options and commands are written.

    `prefix` precedes the name of an option; None writes the argument of a Python function. `program` is the command
    that measures pairs, empty if it is not known. `model_option` precedes the name of the model.
    """

    prefix: str | None
    program: str = ""
    model_option: str = ""


PYTHON = Interface(None)
#: pytest on tests of the user; `pytest_on` returns the interface for the cases.
PYTEST = Interface("--phase-")
COMMAND = Interface("--", "vlm-phase measure")

_current = PYTHON


def pytest_on(cases: str) -> Interface:
    """Return the interface of pytest on the cases, given as on its command line, such as `cases/`."""
    return Interface("--phase-", f"pytest {cases}", "--phase-model ")


def use(interface: Interface) -> Interface:
    """Use an interface in later messages; return the previous one."""
    global _current
    previous, _current = _current, interface
    return previous


def current() -> Interface:
    """Return the interface in use."""
    return _current


def option_text(name: str, value: str | None = None) -> str:
    """Return an option as the user writes it: `--phase-batch-size 4`, `--batch-size 4` or `batch_size=4`.

    Args:
        name: the field of `harness.run.options.Options`, such as `batch_size`.
        value: its value; None names the option only, "True" sets a flag.
    """
    if _current.prefix is None:
        return name if value is None else f"{name}={value}"
    argument = f"{_current.prefix}{name.replace('_', '-')}"
    return argument if value in (None, "True") else f"{argument} {value}"


def in_current_words(text: str) -> str:
    """Return a message that names options of pytest with the options of the interface in use."""
    return text if _current.prefix is None else text.replace(str(PYTEST.prefix), _current.prefix)


def measure_command(model: str, dataset: str, *options: str) -> str:
    """Return the command that measures a pair, with options as of `option_text`.

    Without a known command it refers to the same command, for tests of the user, or to the call in Python.
    """
    if _current.prefix is None:
        return f"harness.measure({model!r}, {dataset!r}{''.join(f', {option}' for option in options)})"
    added = " ".join(options)
    if not _current.program:
        return f"the same command with {added}" if added else "the same command"
    named = f"{_current.model_option}{shlex.quote(model)} {option_text('dataset', dataset)}"
    return f"{_current.program} {named}{f' {added}' if added else ''}"
