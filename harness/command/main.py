"""The command `vlm-phase`: its sub-commands and their help."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NamedTuple

from harness.command.usage_problem import PROGRAM, UsageProblem, similar_name
from harness.errors import PhaseError, print_to_stderr
from harness.interface import COMMAND, use

# pytest's exit code for misuse; pytest itself is imported only by the sub-commands that need it.
_USAGE_ERROR = 4
_HELP, _VERSION = ("-h", "--help"), ("-V", "--version")


class SubCommand(NamedTuple):
    """A sub-command.

    `function` is 'module:name' as text, so that only the module of the called sub-command is imported. It takes the
    arguments after the sub-command's name and returns the exit code. `arguments` and `summary` describe it in the help,
    `example` is a line of its arguments.
    """

    function: str
    arguments: str
    summary: str
    example: str = ""

    def run(self, arguments: Sequence[str]) -> int:
        """Run the sub-command and return its exit code."""
        module, name = self.function.split(":")
        function: Callable[[Sequence[str]], int] = getattr(import_module(f"harness.{module}"), name)
        return function(arguments)


#: The sub-commands by name, in the order of the help.
SUB_COMMANDS: dict[str, SubCommand] = {
    "measure": SubCommand(
        "command.measure_commands:run_measure",
        "[MODEL ...] [options]",
        "measure models, check claims and baselines",
        "scenes-llava --dataset scenes --report out",
    ),
    "compare": SubCommand(
        "command.measure_commands:run_compare",
        "A B [options]",
        "measure model A against model B",
        "my/tuned my/base --dataset scenes",
    ),
    "flow": SubCommand(
        "command.measure_commands:run_flow",
        "MODEL [options]",
        "measure where the image enters, by layers",
        "scenes-llava --dataset scenes --report out",
    ),
    "accept-claims": SubCommand(
        "command.measure_commands:run_accept_claims",
        "MODEL [options]",
        "accept the claims that a model fails",
        "ORG/MODEL --dataset scenes",
    ),
    "report": SubCommand(
        "command.kept_record:run_report", "RECORD.json", "write the page of a kept record", "run.json --output out"
    ),
    "models": SubCommand("command.known_names:run_models", "", "list the known models"),
    "datasets": SubCommand("command.known_names:run_datasets", "", "list the known datasets"),
    "doctor": SubCommand("command.doctor:run_doctor", "", "what this machine lacks, and how to get it"),
    "releases": SubCommand(
        "releases.__main__:main", "RELEASE ...", "compare releases of transformers", "5.4.0 installed"
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: pytest's, with 4 for a command line that cannot be run."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name, *others = arguments or ["--help"]
    if name in (*_HELP, "help"):
        return _print(help_text())
    if name in _VERSION:
        return _print(f"{PROGRAM} {_version()}")
    command = SUB_COMMANDS.get(name)
    if command is None:
        return _refuse(PROGRAM, _unknown(name, arguments))
    previous = use(COMMAND)
    try:
        return command.run(others)
    except (UsageProblem, PhaseError) as problem:
        return _refuse(f"{PROGRAM} {name}", str(problem))
    # The parsers' help ends the program.
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except BrokenPipeError:
        return _close_output()
    finally:
        use(previous)


def help_text() -> str:
    """Return the help: one screen with an example of every sub-command."""
    lines = [
        f"usage: {PROGRAM} COMMAND [arguments]     (or: python -m harness COMMAND ...)",
        "",
        "Measure vision-language models layer by layer, check the paper's claims on them,",
        "and compare them with stored baselines.",
        "",
    ]
    for name, command in SUB_COMMANDS.items():
        lines.append(f"  {f'{name} {command.arguments}'.rstrip():<30} {command.summary}")
        if command.example:
            lines.append(f"      {PROGRAM} {name} {command.example}")
    return "\n".join([*lines, "", f"`{PROGRAM} COMMAND --help` lists the options. Exit codes are pytest's."])


def _unknown(name: str, arguments: Sequence[str]) -> str:
    from harness.models.registry import MODELS

    if name in MODELS:
        return f"{name!r} is a model: did you mean `{PROGRAM} measure {' '.join(arguments)}`?"
    similar = similar_name(name, SUB_COMMANDS)
    hint = f"did you mean {similar}?" if similar else f"use one of {', '.join(SUB_COMMANDS)}"
    return f"there is no command {name!r}: {hint}"


def _version() -> str:
    from harness.profile.environment import installed_version

    return installed_version("vlm-phase-harness")


def _print(text: str) -> int:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        return _close_output()
    return 0


def _close_output() -> int:
    """Return the exit code of a program whose reader closed the pipe, such as `head`."""
    # Python would report the broken pipe again when it flushes the stream at its end.
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - it stays open to the end
    return 128 + 13


def _refuse(program: str, problem: str) -> int:
    print_to_stderr(f"{program}: {problem}")
    return _USAGE_ERROR
