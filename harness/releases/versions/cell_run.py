"""Running a cell: its environment, the type sweep in it, and the embedded pairs."""

from __future__ import annotations

import json
import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.errors import PhaseError
from harness.models.registry import MODELS
from harness.profile.pair import Pair
from harness.releases.versions.fresh_environment import InstallError, Runner, environment, last_words, run_command
from harness.releases.versions.outcome import Outcome, load_outcome, read_pairs, save_outcome
from harness.releases.versions.release_cells import Cell

CHECKOUT = Path(__file__).parents[3]
_FINISHED = (0, 1)  # 1: something failed, and the file says what


def embedded_pairs() -> list[str]:
    """The pairs that need nothing but what the project brings."""
    return [str(Pair(entry.name, dataset)) for entry in MODELS.values() if entry.embedded for dataset in entry.datasets]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a cell's run: the module and arguments, and how the file that it writes is read into an outcome."""

    command: Callable[[Path, Path], list[str]]
    read: Callable[[Mapping[str, Any]], dict[str, Any]]


PARTS: Mapping[str, Part] = {
    "sweep": Part(
        command=lambda checkout, file: ["harness.releases.sweep", "--json", str(file)],
        read=lambda content: {"types": content["types"]},
    ),
    "pairs": Part(
        # No control is judged here, and readings kept by another state of the code prove nothing.
        command=lambda checkout, file: [
            *("pytest", str(checkout / "cases"), "-q", "-m", "embedded and regression", "-p", "no:cacheprovider"),
            *("--phase-controls", "none", "--phase-no-cache", "--phase-json", str(file)),
        ],
        read=lambda content: {"pairs": read_pairs(content, embedded_pairs()), "device": _device(content)},
    ),
}


@dataclass(frozen=True, slots=True)
class Matrix:
    """How cells are run.

    `results` holds one file and one log per cell. `keep` is where environments stay; None: each is removed after its
    cell. With `anew` finished cells are run again. `say` takes a line on what is being done.
    """

    results: Path
    say: Callable[[str], None]
    keep: Path | None = None
    parts: Sequence[str] = tuple(PARTS)
    anew: bool = False
    checkout: Path = CHECKOUT
    run: Runner = run_command

    def outcome(self, cell: Cell) -> Outcome:
        """What a cell gave: kept from before as far as it is finished, run and stored where it is not.

        Raises:
            PhaseError: the file of what was kept is damaged, and it is not to be made anew.
        """
        path = self.results / f"{cell.name}.json"
        try:
            kept = load_outcome(path)
        except PhaseError:
            if not self.anew:
                raise
            kept = None
        todo = [part for part in self.parts if self.anew or kept is None or not kept.has(part)]
        if kept is not None and not todo:
            self.say(f"{cell}: kept from {kept.date} ({path})")
            return kept
        # What is wholly made anew owes nothing to an earlier state of the project.
        return self._run(cell, self._begun(cell, None if len(todo) == len(PARTS) else kept), todo, path)

    def _begun(self, cell: Cell, kept: Outcome | None) -> Outcome:
        """An outcome of today and of this state of the project, with the parts that are kept."""
        today, commit = f"{datetime.now(UTC):%Y-%m-%d}", self._commit()
        if kept is None:
            return Outcome(cell=cell, date=today, commit=commit, python=platform.python_version(), device="")
        done = kept.types is not None or kept.pairs is not None
        return replace(
            kept,
            date=_joined(kept.date, today) if done else today,
            commit=_joined(kept.commit, commit) if done else commit,
        )

    def _commit(self) -> str:
        self.results.mkdir(parents=True, exist_ok=True)
        done = self.run(["git", "describe", "--always", "--dirty"], self.checkout, self.results / "git.log")
        return done.text.strip() if done.status == 0 else "unknown"

    def _run(self, cell: Cell, told: Outcome, todo: Sequence[str], path: Path) -> Outcome:
        log = self.results / f"{cell.name}.log"
        log.write_text("", encoding="utf-8")
        self.say(f"{cell}: making its environment (log {log})")
        start = time.monotonic()
        told = replace(told, problem="", problems={})
        try:
            with environment(cell, self.checkout, self.keep, log, self.run) as python:
                told = _timed(told, "install", start)
                for part in todo:
                    self.say(f"{cell}: {part}")
                    start = time.monotonic()
                    told = _timed(self._part(part, python, log, told), part, start)
                    save_outcome(path, told)
        except InstallError as error:
            told = _timed(replace(told, problem=str(error)), "install", start)
            save_outcome(path, told)
        return told

    def _part(self, name: str, python: Path, log: Path, told: Outcome) -> Outcome:
        part = PARTS[name]
        with tempfile.TemporaryDirectory(prefix="phase-versions-") as directory:
            file = Path(directory) / f"{name}.json"
            done = self.run([str(python), "-m", *part.command(self.checkout, file)], self.checkout, log)
            problem = f"exit status {done.status}: {last_words(done.text)}"
            if done.status in _FINISHED and file.exists():
                try:
                    return replace(told, **part.read(json.loads(file.read_text(encoding="utf-8"))))
                except (ValueError, KeyError, TypeError) as error:
                    problem = f"its record cannot be read ({error!r})"
        return replace(told, problems={**told.problems, name: problem})


def _device(content: Mapping[str, Any]) -> str:
    places = [pair["environment"] for pair in content["pairs"].values()]
    return ", ".join(sorted({f"{place['device_name']} ({place['device']})" for place in places}))


def _timed(told: Outcome, part: str, start: float) -> Outcome:
    return replace(told, seconds={**told.seconds, part: round(time.monotonic() - start, 1)})


def _joined(first: str, second: str) -> str:
    return first if first == second else f"{first}, {second}"
