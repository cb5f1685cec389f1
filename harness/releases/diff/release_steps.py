"""Steps from one release to the next: every release loads the types of the one before and makes its own."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.errors import PhaseError
from harness.releases.commands import Runner, run_command, run_parallel
from harness.releases.diff.readings_comparison import Array, is_same
from harness.releases.diff.release_verdict import ALARMS, TypeChange, judge_directories
from harness.releases.diff.type_report import COMPLETED, LOADED, TypeReport, TypeState, load_arrays, save_report
from harness.releases.diff.worker import Workplace
from harness.releases.environments import InstallError, Release, prepare_environment

#: Processes of one release.
PROCESSES = min(4, os.cpu_count() or 1)
# A process that crashes is started again for the remaining types, this often at most.
_MOST_CRASHES = 20


class UnusableReleaseError(PhaseError):
    """A release cannot be installed, imported or measured; the message has the reason."""

    def __init__(self, release: Release, message: str) -> None:
        super().__init__(message)
        self.release = release


@dataclass(frozen=True, slots=True)
class MeasuredRelease:
    """A release as the user named it, and the numbers of transformers and torch in its environment."""

    release: Release
    transformers: str
    torch: str

    def __str__(self) -> str:
        name = str(self.release)
        name = name if name == self.transformers else f"{name} ({self.transformers})"
        return f"{name}, torch {self.torch}" if self.release.torch else name


@dataclass(frozen=True, slots=True)
class ReleaseStep:
    """The changes of all types from the release `old` to the release `new`."""

    old: MeasuredRelease
    new: MeasuredRelease
    changes: Mapping[str, TypeChange]

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
        types = {name: change.record() for name, change in self.changes.items()}
        return {
            "from": str(self.old.release),
            "to": str(self.new.release),
            "transformers": [self.old.transformers, self.new.transformers],
            "torch": [self.old.torch, self.new.torch],
            "types": types,
        }


@dataclass(frozen=True, slots=True)
class ReleaseWalk:
    """A walk through releases: each loads the types that the one before made, then makes its own.

    `types` limits it to some types; none means all. `log` gets the output of all commands, which `run` runs.
    """

    releases: Sequence[Release]
    types: Sequence[str]
    log: Path
    run: Runner = run_command
    # By type: the releases before its moves, with their readings.
    _earlier: dict[str, list[tuple[str, Mapping[str, Array]]]] = field(default_factory=dict)

    def steps(self) -> Iterator[ReleaseStep]:
        """Yield the step from each release to the next as soon as it is measured.

        Raises:
            UnusableReleaseError: the environment of a release cannot be created, or a process in it fails before its
                first type.
            PhaseError: neither release of a step has a named type.
        """
        with tempfile.TemporaryDirectory(prefix="phase-releases-") as temporary:
            before: Workplace | None = None
            old: MeasuredRelease | None = None
            for index, release in enumerate(self.releases):
                workplace = Workplace(Path(temporary) / str(index))
                workplace.made.mkdir(parents=True)
                new = self._measure(release, workplace, before, make=index + 1 < len(self.releases))
                if before is not None and old is not None:
                    yield ReleaseStep(old, new, self._judge(str(old), before, workplace))
                    shutil.rmtree(before.root)
                before, old = workplace, new

    def _measure(
        self, release: Release, workplace: Workplace, before: Workplace | None, *, make: bool
    ) -> MeasuredRelease:
        """Run the worker in parallel parts. A type at which a process crashes gets a report."""
        try:
            environment = prepare_environment(release, self.log, self.run)
        except InstallError as error:
            raise UnusableReleaseError(release, str(error)) from error
        command = environment.command("-m", "harness.releases.diff.worker", str(workplace.root))
        command += ["--make"] if make else []
        command += ["--saved", str(before.made)] if before else []
        command += ["--types", *self.types] if self.types else []

        # A part without a type would import the release for nothing.
        parts = min(PROCESSES, len(self.types) or PROCESSES)

        def run_part(part: int) -> None:
            arguments = [*command, "--part", str(part), str(parts)]
            for _ in range(_MOST_CRASHES):
                workplace.current(part).unlink(missing_ok=True)
                result = self.run(arguments, workplace.root, self.log, environment.variables)
                if result.status == 0:
                    return
                if not workplace.current(part).exists():
                    reason = f"{release.title} cannot be measured: {result.reason}; see {self.log}"
                    raise UnusableReleaseError(release, reason)
                directory = Path(workplace.current(part).read_text(encoding="utf-8"))
                reason = f"the process ended with exit status {result.status}: {result.reason}"
                save_report(directory, TypeReport(directory.name, TypeState.FAILED, reason))

        run_parallel(run_part, parts)
        return MeasuredRelease(release, environment.transformers, environment.torch)

    def _judge(self, old: str, before: Workplace, after: Workplace) -> dict[str, TypeChange]:
        known = [workplace.known.read_text(encoding="utf-8").split() for workplace in (before, after)]
        names = sorted({*known[0], *known[1]})
        for name in self.types:
            if name not in names:
                raise PhaseError(f"neither release has a vision-language type {name!r}")
        return {name: self._judge_one(name, old, before, after) for name in names if name in (self.types or names)}

    def _judge_one(self, name: str, old: str, before: Workplace, after: Workplace) -> TypeChange:
        saved, loaded = before.made / name, after.loaded / name
        change = judge_directories(saved, loaded)
        if not change.moves:
            return change
        earlier = self._earlier.setdefault(name, [])
        readings = load_arrays(loaded, COMPLETED) or load_arrays(loaded, LOADED)
        again = next((release for release, arrays in earlier if is_same(arrays, readings)), None)
        earlier.append((old, load_arrays(saved, LOADED)))
        return replace(change, remarks=[*change.remarks, f"as in {again} again"]) if again else change
