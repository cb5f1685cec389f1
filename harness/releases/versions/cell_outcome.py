"""Cells of the version matrix and their outcomes: environment, verdicts on types and on bundled pairs."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

from harness.analysis.mean_difference import Verdict
from harness.errors import PhaseError
from harness.models.registry import MODELS
from harness.profile.pair import Pair
from harness.releases.environments import Release
from harness.storage.files import write_atomically
from harness.storage.json_text import dump

CHECKOUT = Path(__file__).parents[3]
#: By part of a cell's run: the module and its arguments; the path of the output file is appended.
PARTS: Mapping[str, Sequence[str]] = {
    "sweep": ("harness.releases.sweep", "--json"),
    # The regression verdicts need no controls; cached readings may come from another state of the code.
    "pairs": (
        *("pytest", str(CHECKOUT / "cases"), "-q", "-m", "bundled and regression", "-p", "no:cacheprovider"),
        *("--phase-controls", "none", "--phase-no-cache", "--phase-json"),
    ),
}
#: Oldest first: the oldest supported release, two in between, the newest.
TRANSFORMERS = ("5.0.0", "5.8.1", "5.16.1", "5.23.0")
#: Newest first.
TORCH = ("2.15.0", "2.14.1")
ERROR = "error"
# Worst first: a pair gets its worst verdict.
_ORDER = (ERROR, *map(str, (Verdict.DIFFERS, Verdict.INCONCLUSIVE, Verdict.EQUIVALENT, Verdict.REPRODUCES)))


@dataclass(frozen=True, slots=True)
class ReleaseCell:
    """A cell of the matrix: the version numbers of transformers and torch."""

    transformers: str
    torch: str

    @property
    def release(self) -> Release:
        """The two releases as those of an environment."""
        return Release(self.transformers, self.torch)

    @property
    def name(self) -> str:
        """The name of the cell's files."""
        return f"transformers-{self.transformers}-torch-{self.torch}"

    def __str__(self) -> str:
        return self.release.title


def cells_of(transformers: Sequence[str] = (), torch: Sequence[str] = ()) -> list[ReleaseCell]:
    """Return all combinations of the named releases; a library without a named release uses its newest.

    If no release is named, combine every release of transformers with the newest torch, and the newest transformers
    with the older torch.
    """
    if not transformers and not torch:
        older = [ReleaseCell(TRANSFORMERS[-1], release) for release in TORCH[1:]]
        return [*(ReleaseCell(release, TORCH[0]) for release in TRANSFORMERS), *older]
    pairs = product(transformers or TRANSFORMERS[-1:], torch or TORCH[:1])
    return list(dict.fromkeys(ReleaseCell(*releases) for releases in pairs))


@dataclass(slots=True)
class CellOutcome:
    """The outcome of one cell; the fields have no entry for a part that did not run.

    `problem` is the reason why the environment could not be created, `problems` the reasons why parts gave no result.
    `types` has verdict and remark by type. `pairs` has, by pair, the verdict of each question and the largest absolute
    difference of any sample from the baseline for each measure. `seconds` has the duration of each part.
    """

    cell: ReleaseCell
    date: str = ""
    commit: str = ""
    python: str = platform.python_version()
    device: str = ""
    problem: str = ""
    problems: dict[str, str] = field(default_factory=dict)
    types: Mapping[str, Mapping[str, str]] | None = None
    pairs: Mapping[str, Mapping[str, Any]] | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def begin(self, commit: str) -> None:
        """Add the current date and commit to those of finished parts, and clear earlier problems."""
        earlier = self.types is not None or self.pairs is not None
        for name, value in (("date", f"{datetime.now(UTC):%Y-%m-%d}"), ("commit", commit)):
            known = getattr(self, name).split(", ") if earlier else []
            setattr(self, name, ", ".join(dict.fromkeys([*known, value])))
        self.problem, self.problems = "", {}

    @contextmanager
    def time_part(self, part: str) -> Iterator[None]:
        """Record the seconds of a `with` block."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[part] = round(time.monotonic() - start, 1)

    def read_part(self, part: str, file: Path) -> bool:
        """Read the JSON record of a part of the run; return False if the file does not exist.

        A damaged file is stored as a problem of the part.
        """
        if not file.exists():
            return False
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            if part == "sweep":
                self.types = record["types"]
            else:
                hosts = [pair["environment"] for pair in record["pairs"].values()]
                device = ", ".join(sorted({f"{host['device_name']} ({host['device']})" for host in hosts}))
                self.pairs, self.device = read_pairs(record, bundled_pairs()), device
        except (ValueError, KeyError, TypeError) as error:
            self.problems[part] = f"its record cannot be read ({error!r})"
        return True

    def has_part(self, part: str) -> bool:
        """Return True if a part of the run is done; pairs that could not be judged count as not done."""
        if part == "sweep":
            return self.types is not None
        return self.pairs is not None and ERROR not in map(self.worst_verdict, self.pairs)

    def count_types(self, verdict: str) -> int | None:
        """Return the number of types with a verdict, or None if the sweep did not run."""
        return None if self.types is None else sum(entry["verdict"] == verdict for entry in self.types.values())

    def worst_verdict(self, pair: str) -> str | None:
        """Return the worst verdict on a pair, `error` if it could not be judged, or None if no pair ran."""
        if self.pairs is None:
            return None
        verdicts = set(self.pairs.get(pair, {}).get("verdicts", {ERROR: ERROR}).values())
        return next((verdict for verdict in _ORDER if verdict in verdicts), ERROR)

    def largest_difference(self, measure: str, pair: str | None = None) -> float | None:
        """Return the largest absolute difference of any sample in a measure, for one pair or all; None if unknown."""
        entries = [entry for name, entry in (self.pairs or {}).items() if pair in (None, name)]
        known = [entry["largest"][measure] for entry in entries if entry["largest"].get(measure) is not None]
        return max(known, default=None)

    @property
    def passed(self) -> bool:
        """True if the cell installs, every part finished, no type failed and no pair differs."""
        verdicts = {self.worst_verdict(pair) for pair in self.pairs or {}}
        failed = self.count_types("failed") or verdicts & {ERROR, str(Verdict.DIFFERS)}
        return not (self.problem or self.problems or failed)


def bundled_pairs() -> list[str]:
    """Return the names of the bundled pairs."""
    return [str(Pair(entry.name, dataset)) for entry in MODELS.values() if entry.bundled for dataset in entry.datasets]


def read_pairs(record: Mapping[str, Any], expected: list[str]) -> dict[str, dict[str, Any]]:
    """Return verdicts and largest differences by pair from a run's JSON record; an absent pair gets `error`."""
    pairs: dict[str, dict[str, Any]] = {pair: {"verdicts": {}, "largest": {}} for pair in expected}
    for line in record["verdicts"]:
        entry = pairs.setdefault(line["pair"], {"verdicts": {}, "largest": {}})
        entry["verdicts"][line["question"]] = line["verdict"]
        for measure, numbers in line["numbers"].items():
            if isinstance(numbers, Mapping) and "largest" in numbers:
                entry["largest"][measure] = numbers["largest"]
    for entry in pairs.values():
        entry["verdicts"] = entry["verdicts"] or {ERROR: ERROR}
    return pairs


def save_outcome(path: Path, outcome: CellOutcome) -> None:
    """Write the outcome of a cell as JSON."""
    write_atomically(path, dump(asdict(outcome)))


def load_outcome(path: Path, *, anew: bool = False) -> CellOutcome | None:
    """Return the stored outcome of a cell, or None if there is none.

    Raises:
        PhaseError: the file is damaged and `anew` is False.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return CellOutcome(**content | {"cell": ReleaseCell(**content["cell"])})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        if anew:
            return None
        raise PhaseError(f"{path} cannot be read ({error}); delete it or run with --anew") from None
