"""A fresh virtual environment with the project and the two releases of a cell in it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.errors import PhaseError
from harness.releases.versions.release_cells import Cell

_READY = "phase-ready"
_LONGEST = 7200  # seconds of one command
_IMPORTS = (
    "import harness, torch, transformers; from importlib.metadata import version; "
    "print(version('transformers'), version('torch').split('+')[0])"
)


class InstallError(PhaseError):
    """The environment of a cell cannot be made; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended: its exit status, and what it wrote to both streams."""

    status: int
    text: str


#: Runs a command in a directory and appends what it says to a log.
Runner = Callable[[Sequence[str], Path, Path], Done]


def run_command(command: Sequence[str], directory: Path, log: Path) -> Done:
    """How a command ended that ran in `directory`, nothing of this process's own packages in its path."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTEST_ADDOPTS")}
    try:
        ended = subprocess.run(  # noqa: S603 - the commands are ours
            command,
            cwd=directory,
            env=clean | {"PYTHONNOUSERSITE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            timeout=_LONGEST,
        )
        done = Done(ended.returncode, ended.stdout)
    except subprocess.TimeoutExpired:
        done = Done(124, f"it took longer than {_LONGEST} s")
    except OSError as error:
        done = Done(127, str(error))
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {' '.join(command)}\n{done.text}\n[exit status {done.status}]\n")
    return done


def last_words(text: str) -> str:
    """The sentence that says what went wrong: the first error that pip names, else the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return next(iter(errors or lines[-1:]), "no message")


@contextmanager
def environment(cell: Cell, checkout: Path, keep: Path | None, log: Path, run: Runner = run_command) -> Iterator[Path]:
    """The interpreter of an environment that holds the project and both releases; removed afterwards unless kept.

    Args:
        cell: the releases.
        checkout: the project's directory.
        keep: the directory in which environments stay and are found again.
        log: takes what pip says.
        run: how commands are run.

    Raises:
        InstallError: it cannot be made, installed into or imported from.
    """
    with tempfile.TemporaryDirectory(prefix="phase-versions-") as temporary:
        home = (keep or Path(temporary)).absolute() / cell.name
        python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        if not (home / _READY).exists():
            _make(cell, checkout, home, python, log, run)
        yield python


def _make(cell: Cell, checkout: Path, home: Path, python: Path, log: Path, run: Runner) -> None:
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pins = [f"transformers=={cell.transformers}", f"torch=={cell.torch}"]
    steps = (
        ("be made", [sys.executable, "-m", "venv", "--clear", str(home)]),
        ("be installed", [*pip, "--editable", str(checkout), *pins]),
        ("be imported", [str(python), "-W", "ignore", "-c", _IMPORTS]),
    )
    for what, command in steps:
        done = run(command, checkout, log)
        if done.status:
            raise InstallError(f"cannot {what}: {last_words(done.text)}")
    found = (done.text.strip().splitlines() or [""])[-1]
    if found != f"{cell.transformers} {cell.torch}":
        raise InstallError(f"cannot be installed: the environment holds {found!r}")
    (home / _READY).touch()
