"""Run the cells of the version matrix, each in the environment of its two releases."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.releases.environments import InstallError, Runner, prepare_environment, run_command
from harness.releases.versions.cell_outcome import CHECKOUT, PARTS, CellOutcome, ReleaseCell, load_outcome, save_outcome

_report = partial(print, file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Matrix:
    """Settings of a run; `results` is the directory with a file and a log per cell.

    If `anew` is True, finished parts run again.
    """

    results: Path
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
        try:
            with outcome.time_part("install"):
                environment = prepare_environment(cell.release, log, self.run)
        except InstallError as error:
            outcome.problem = str(error)
            save_outcome(path, outcome)
            return
        with tempfile.TemporaryDirectory(prefix="phase-versions-") as temporary:
            for part in parts:
                _report(f"{cell}: {part} (log {log})")
                file = Path(temporary) / f"{part}.json"
                command = environment.command("-m", *PARTS[part], str(file))
                with outcome.time_part(part):
                    result = self.run(command, CHECKOUT, log, environment.variables)
                    # Status 1: a check failed, and the file has the details.
                    if result.status not in (0, 1) or not outcome.read_part(part, file):
                        outcome.problems.setdefault(part, f"exit status {result.status}: {result.reason}")
                save_outcome(path, outcome)
