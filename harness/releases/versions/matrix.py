"""Run the cells of the version matrix, each in a virtual environment with two pinned releases."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from harness.errors import PhaseError, last_line
from harness.releases.versions.cell_outcome import CHECKOUT, PARTS, CellOutcome, ReleaseCell, load_outcome, save_outcome

_TIMEOUT_SECONDS = 7200
_report = partial(print, file=sys.stderr, flush=True)
_IMPORTS = (
    "import harness, torch, transformers; from importlib.metadata import version; "
    "print(version('transformers'), version('torch').split('+')[0])"
)


class CommandResult(NamedTuple):
    """The exit status of a command and its output on both streams."""

    status: int
    text: str

    @property
    def reason(self) -> str:
        """The first error that pip reports, else the last line of the output."""
        lines = map(str.strip, self.text.splitlines())
        errors = (line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: "))
        return next(errors, last_line(self.text, "no message").strip())


#: Runs a command in a directory and appends its output to a log.
Runner = Callable[[Sequence[str], Path, Path], CommandResult]


def run_command(command: Sequence[str], directory: Path, log: Path) -> CommandResult:
    """Run a command without this process's PYTHONPATH and PYTEST_ADDOPTS."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTEST_ADDOPTS")}
    try:
        completed = subprocess.run(  # noqa: S603 - the commands are our own
            command,
            cwd=directory,
            env=clean | {"PYTHONNOUSERSITE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_SECONDS,
        )
        result = CommandResult(completed.returncode, completed.stdout)
    except subprocess.TimeoutExpired:
        result = CommandResult(124, f"it took longer than {_TIMEOUT_SECONDS} s")
    except OSError as error:
        result = CommandResult(127, str(error))
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {' '.join(command)}\n{result.text}\n[exit status {result.status}]\n")
    return result


class InstallError(PhaseError):
    """The environment of a cell cannot be created; the message is the reason."""


def make_environment(cell: ReleaseCell, home: Path, log: Path, run: Runner = run_command) -> Path:
    """Return the interpreter of the environment in `home`; create the environment if it is missing.

    Raises:
        InstallError: the environment cannot be created, or the packages cannot be installed or imported.
    """
    python, ready = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python"), home / "phase-ready"
    if ready.exists():
        return python
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--editable", str(CHECKOUT)]
    for step, command in (
        ("be created", [sys.executable, "-m", "venv", "--clear", str(home)]),
        ("be installed", [*pip, f"transformers=={cell.transformers}", f"torch=={cell.torch}"]),
        ("be imported", [str(python), "-W", "ignore", "-c", _IMPORTS]),
    ):
        result = run(command, CHECKOUT, log)
        if result.status:
            raise InstallError(f"cannot {step}: {result.reason}")
    releases = last_line(result.text, "")
    if releases != f"{cell.transformers} {cell.torch}":
        raise InstallError(f"cannot be installed: the environment holds {releases!r}")
    ready.touch()
    return python


@dataclass(frozen=True, slots=True)
class Matrix:
    """Settings of a run; `results` is the directory with a file and a log per cell.

    `keep` is the directory for environments; if None, each environment is removed after its cell. If `anew` is True,
    finished parts run again.
    """

    results: Path
    keep: Path | None = None
    parts: Sequence[str] = tuple(PARTS)
    anew: bool = False
    run: Runner = run_command

    def run_cell(self, cell: ReleaseCell) -> CellOutcome:
        """Return the outcome of a cell; stored parts are reused, missing parts run and are stored.

        Raises:
            PhaseError: the stored file is damaged and `anew` is False.
        """
        path = self.results / f"{cell.name}.json"
        stored = load_outcome(path, anew=self.anew)
        missing = [part for part in self.parts if self.anew or stored is None or not stored.has_part(part)]
        if stored is not None and not missing:
            _report(f"{cell}: reused from {stored.date} ({path})")
            return stored
        # If all parts run, discard the earlier outcome with its dates and commits.
        outcome = stored if stored is not None and len(missing) < len(PARTS) else CellOutcome(cell)
        self._fill(outcome, missing, path)
        return outcome

    def _fill(self, outcome: CellOutcome, parts: Sequence[str], path: Path) -> None:
        log, cell = path.with_suffix(".log"), outcome.cell
        self.results.mkdir(parents=True, exist_ok=True)
        log.write_text("", encoding="utf-8")
        state = self.run(["git", "describe", "--always", "--dirty"], CHECKOUT, log)
        outcome.begin("unknown" if state.status else state.text.strip())
        _report(f"{cell}: creating its environment (log {log})")
        with tempfile.TemporaryDirectory(prefix="phase-versions-") as temporary:
            home = (self.keep or Path(temporary)).absolute() / cell.name
            try:
                with outcome.time_part("install"):
                    python = make_environment(cell, home, log, self.run)
            except InstallError as error:
                outcome.problem, parts = str(error), ()
                save_outcome(path, outcome)
            for part in parts:
                _report(f"{cell}: {part}")
                file = Path(temporary) / f"{part}.json"
                with outcome.time_part(part):
                    result = self.run([str(python), "-m", *PARTS[part], str(file)], CHECKOUT, log)
                    # Status 1: a check failed, and the file has the details.
                    if result.status not in (0, 1) or not outcome.read_part(part, file):
                        outcome.problems.setdefault(part, f"exit status {result.status}: {result.reason}")
                save_outcome(path, outcome)
