"""The interface that the user calls: Python, pytest or the command `vlm-phase`.

Messages name options and commands of the interface in use: an error from Python speaks of arguments, an error from
pytest of `--phase-` options.
"""

from __future__ import annotations

import re
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

#: The arguments of `harness.measure` and `harness.Vlm.load` that have the name of an option.
ARGUMENTS = frozenset(
    {
        "allow_unused_weights",
        "batch_size",
        "cache",
        "controls",
        "device",
        "download",
        "draw",
        "dtype",
        "samples",
        "seed",
        "trust_code",
    }
)
# Options that name a model are flags of the model's own call.
_OF_A_MODEL = ("trust_code", "allow_unused_weights")
# Options whose argument in Python has another form.
_IN_PYTHON = {"data": "source=harness.Source(DIR)", "no_cache": "cache=None"}
_LITERAL = re.compile(r"\d+|True|None")
_PLACEHOLDER = re.compile(r"\[\[(\w+)(?: ([^\]]+))?\]\]")

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


def in_python() -> bool:
    """Return True if the user calls functions, no command."""
    return _current.prefix is None


def option_text(name: str, value: str | None = None) -> str:
    """Return an option as the user writes it: `--phase-batch-size 4`, `--batch-size 4` or `batch_size=4`.

    In Python an option that no function takes is one of the command: `vlm-phase measure --update`.

    Args:
        name: the field of `harness.run.options.Options`, such as `batch_size`.
        value: its value; None names the option only, "True" sets a flag.
    """
    if _current.prefix is not None:
        return _argument(_current.prefix, name, value)
    if name in _OF_A_MODEL and value is not None:
        return f"{name}=True"
    if name in _IN_PYTHON:
        return _IN_PYTHON[name]
    if name not in ARGUMENTS:
        return f"{COMMAND.program} {_argument('--', name, value)}"
    return name if value is None else f"{name}={value if _LITERAL.fullmatch(value) else repr(value)}"


def expand_options(text: str) -> str:
    """Return a text in which `[[name]]` and `[[name value]]` are replaced by `option_text` of them.

    Texts that are made before the interface is known name options in this form.
    """
    return _PLACEHOLDER.sub(lambda match: option_text(match[1], match[2]), text)


def in_current_words(text: str) -> str:
    """Return a message that names options of pytest with the options of the interface in use."""
    return text if _current.prefix is None else text.replace(str(PYTEST.prefix), _current.prefix)


def measure_command(model: str, dataset: str, *options: str) -> str:
    """Return the command that measures a pair, with options as of `option_text`.

    Without a known command it refers to the same command, for tests of the user, or to the call in Python.
    """
    interface = _current
    if interface.prefix is None:
        if not any(option.startswith(COMMAND.program) for option in options):
            return f"harness.measure({model!r}, {dataset!r}{''.join(f', {option}' for option in options)})"
        interface = COMMAND
        options = tuple(option.removeprefix(f"{COMMAND.program} ") for option in options)
    added = " ".join(options)
    if not interface.program:
        return f"the same command with {added}" if added else "the same command"
    named = f"{interface.model_option}{shlex.quote(model)} {interface.prefix}dataset {shlex.quote(dataset)}"
    return f"{interface.program} {named}{f' {added}' if added else ''}"


def _argument(prefix: str, name: str, value: str | None) -> str:
    argument = f"{prefix}{name.replace('_', '-')}"
    return argument if value in (None, "True") else f"{argument} {value}"
