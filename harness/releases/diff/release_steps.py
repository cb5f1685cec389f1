"""Steps from one release to the next: every release loads the types of the one before and makes its own."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import PhaseError
from harness.releases.diff.release_verdict import ALARMS, ReleaseVerdict, TypeChange, judge_type
from harness.releases.diff.saved_types import LOADED, MADE
from harness.releases.diff.type_report import TypeReport, TypeState, load_arrays, load_report, save_report
from harness.releases.diff.worker import Workplace
from harness.releases.environments import Environment, Release, Runner, prepare_environment, run_command

_PARTS = min(4, os.cpu_count() or 1)
# A process that crashes is started again for the remaining types, this often at most.
_MOST_CRASHES = 20


@dataclass(frozen=True, slots=True)
class ReleaseStep:
    """The changes of all types from one release to the next, by type; the releases' names and true numbers."""

    old: str
    new: str
    changes: dict[str, TypeChange] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The step as text, such as "5.2.0 -> 5.4.0"."""
        return f"{self.old} -> {self.new}"

    @property
    def alarms(self) -> list[TypeChange]:
        """The changes that let the command fail."""
        return [change for change in self.changes.values() if change.verdict in ALARMS]

    def record(self) -> dict[str, Any]:
        """Return the step for a JSON record."""
        return {
            "from": self.old,
            "to": self.new,
            "types": {name: change.record() for name, change in sorted(self.changes.items())},
        }


def walk_releases(
    releases: Sequence[Release], types: Sequence[str], log: Path, run: Runner = run_command
) -> Iterator[ReleaseStep]:
    """Yield the step from each release to the next one, as soon as it is measured.

    Args:
        releases: two or more, in the order of the steps.
        types: the types to compare; none for all.
        log: the file that gets the output of all commands.
        run: runs the commands.

    Raises:
        InstallError: the environment of a release cannot be created.
        PhaseError: a process fails before its first type, or no release has a type of `types`.
    """
    with tempfile.TemporaryDirectory(prefix="phase-releases-") as temporary:
        before: Workplace | None = None
        for index, release in enumerate(releases):
            workplace = Workplace(Path(temporary) / str(index))
            workplace.root.mkdir()
            environment = prepare_environment(release, log, run)
            arguments = [str(workplace.root), *(["--make"] if index + 1 < len(releases) else [])]
            arguments += ["--saved", str(before.made)] if before else []
            arguments += ["--types", *types] if types else []
            _run_worker(environment, arguments, workplace, log, run)
            if before is not None:
                yield ReleaseStep(str(releases[index - 1]), str(release), _judge_types(before, workplace, types))
                shutil.rmtree(before.root)
            before = workplace


def _run_worker(
    environment: Environment, arguments: Sequence[str], workplace: Workplace, log: Path, run: Runner
) -> None:
    """Run the worker in parallel parts. A type at which a process crashes gets a report."""

    def run_part(part: int) -> None:
        command = environment.command(
            "-m", "harness.releases.diff.worker", *arguments, "--part", str(part), str(_PARTS)
        )
        for _ in range(_MOST_CRASHES):
            workplace.current(part).unlink(missing_ok=True)
            result = run(command, workplace.root, log, environment.variables)
            if result.status == 0:
                return
            if not workplace.current(part).exists():
                raise PhaseError(
                    f"transformers {environment.transformers} cannot be measured: {result.reason}; see {log}"
                )
            directory = Path(workplace.current(part).read_text(encoding="utf-8"))
            reason = f"the process ended with exit status {result.status}: {result.reason}"
            save_report(directory, TypeReport(directory.name, TypeState.FAILED, reason))

    with ThreadPoolExecutor(_PARTS) as pool:
        list(pool.map(run_part, range(_PARTS)))


def _judge_types(before: Workplace, after: Workplace, types: Sequence[str]) -> dict[str, TypeChange]:
    known = [workplace.known.read_text(encoding="utf-8").split() for workplace in (before, after)]
    for name in types:
        if name not in known[0] and name not in known[1]:
            raise PhaseError(f"neither release has a vision-language type {name!r}")
    changes = {}
    for name in sorted({*known[0], *known[1]}):
        if types and name not in types:
            continue
        made, loaded = load_report(before.made / name), load_report(after.loaded / name)
        if made is None:
            changes[name] = TypeChange(name, ReleaseVerdict.NEW)
            continue
        changes[name] = judge_type(
            made,
            loaded or TypeReport(name, TypeState.FAILED, "its process gave no result"),
            made=load_arrays(before.made / name, MADE),
            saved=load_arrays(before.made / name, LOADED),
            loaded=load_arrays(after.loaded / name, LOADED),
        )
    return changes
