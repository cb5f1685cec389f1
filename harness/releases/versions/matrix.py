"""The cells of the matrix, each run in a fresh virtual environment that holds the project and two pinned releases."""

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

_LONGEST = 7200  # seconds of one command
_say = partial(print, file=sys.stderr, flush=True)
_IMPORTS = (
    "import harness, torch, transformers; from importlib.metadata import version; "
    "print(version('transformers'), version('torch').split('+')[0])"
)


class Done(NamedTuple):
    """The exit status of a command, and its text on both streams."""

    status: int
    text: str

    @property
    def reason(self) -> str:
        """The first error that pip names, else the last line."""
        lines = map(str.strip, self.text.splitlines())
        errors = (line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: "))
        return next(errors, last_line(self.text, "no message").strip())


#: Runs a command in a directory and appends its text to a log.
Runner = Callable[[Sequence[str], Path, Path], Done]


def run_command(command: Sequence[str], directory: Path, log: Path) -> Done:
    """Run a command without the packages and the options of this process."""
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


class InstallError(PhaseError):
    """The environment of a cell cannot be made; the message is the reason."""


def environment(cell: ReleaseCell, home: Path, log: Path, run: Runner = run_command) -> Path:
    """Return the interpreter of the environment in `home`, which is made unless it is there already.

    Raises:
        InstallError: it cannot be made, installed into or imported from.
    """
    python, ready = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python"), home / "phase-ready"
    if ready.exists():
        return python
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--editable", str(CHECKOUT)]
    for step, command in (
        ("be made", [sys.executable, "-m", "venv", "--clear", str(home)]),
        ("be installed", [*pip, f"transformers=={cell.transformers}", f"torch=={cell.torch}"]),
        ("be imported", [str(python), "-W", "ignore", "-c", _IMPORTS]),
    ):
        done = run(command, CHECKOUT, log)
        if done.status:
            raise InstallError(f"cannot {step}: {done.reason}")
    releases = last_line(done.text, "")
    if releases != f"{cell.transformers} {cell.torch}":
        raise InstallError(f"cannot be installed: the environment holds {releases!r}")
    ready.touch()
    return python


@dataclass(frozen=True, slots=True)
class Matrix:
    """Settings of a run: `results` holds a file and a log per cell.

    `keep` is where environments stay; None: each is removed after its cell. With `anew` finished parts run again.
    """

    results: Path
    keep: Path | None = None
    parts: Sequence[str] = tuple(PARTS)
    anew: bool = False
    run: Runner = run_command

    def outcome(self, cell: ReleaseCell) -> CellOutcome:
        """Return the outcome of a cell: kept as far as it is finished, run and stored where it is not.

        Raises:
            PhaseError: the file of what was kept is damaged, and it is not to be made anew.
        """
        path = self.results / f"{cell.name}.json"
        kept = load_outcome(path, anew=self.anew)
        missing = [part for part in self.parts if self.anew or kept is None or not kept.has(part)]
        if kept is not None and not missing:
            _say(f"{cell}: kept from {kept.date} ({path})")
            return kept
        # A cell that is run as a whole owes nothing to an earlier state of the project.
        outcome = kept if kept is not None and len(missing) < len(PARTS) else CellOutcome(cell)
        self._fill(outcome, missing, path)
        return outcome

    def _fill(self, outcome: CellOutcome, parts: Sequence[str], path: Path) -> None:
        log, cell = path.with_suffix(".log"), outcome.cell
        self.results.mkdir(parents=True, exist_ok=True)
        log.write_text("", encoding="utf-8")
        state = self.run(["git", "describe", "--always", "--dirty"], CHECKOUT, log)
        outcome.begin("unknown" if state.status else state.text.strip())
        _say(f"{cell}: making its environment (log {log})")
        with tempfile.TemporaryDirectory(prefix="phase-versions-") as temporary:
            home = (self.keep or Path(temporary)).absolute() / cell.name
            try:
                with outcome.timed("install"):
                    python = environment(cell, home, log, self.run)
            except InstallError as error:
                outcome.problem, parts = str(error), ()
                save_outcome(path, outcome)
            for part in parts:
                _say(f"{cell}: {part}")
                file = Path(temporary) / f"{part}.json"
                with outcome.timed(part):
                    done = self.run([str(python), "-m", *PARTS[part], str(file)], CHECKOUT, log)
                    # 1: something failed, and the file says what.
                    if done.status not in (0, 1) or not outcome.take(part, file):
                        outcome.problems.setdefault(part, f"exit status {done.status}: {done.reason}")
                save_outcome(path, outcome)
