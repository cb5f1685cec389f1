"""Cells of the matrix and their outcomes: the environment, the verdicts on types and on bundled pairs."""

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
from harness.storage.files import write_atomically
from harness.storage.json_text import dump

CHECKOUT = Path(__file__).parents[3]
#: By part of a cell's run the module and its arguments, up to the file that it writes.
PARTS: Mapping[str, Sequence[str]] = {
    "sweep": ("harness.releases.sweep", "--json"),
    # No control is judged here, and readings kept by another state of the code prove nothing.
    "pairs": (
        *("pytest", str(CHECKOUT / "cases"), "-q", "-m", "bundled and regression", "-p", "no:cacheprovider"),
        *("--phase-controls", "none", "--phase-no-cache", "--phase-json"),
    ),
}
#: Oldest first: the first release of the range, two in between, the newest.
TRANSFORMERS = ("5.0.0", "5.8.1", "5.16.1", "5.23.0")
#: Newest first.
TORCH = ("2.15.0", "2.14.1")
ERROR = "error"
# The worst first: a pair has the worst of its answers.
_ORDER = (ERROR, *map(str, (Verdict.DIFFERS, Verdict.INCONCLUSIVE, Verdict.EQUIVALENT, Verdict.REPRODUCES)))


@dataclass(frozen=True, slots=True)
class ReleaseCell:
    """A cell of the matrix: one release of transformers with one release of torch, by version number."""

    transformers: str
    torch: str

    @property
    def name(self) -> str:
        """The name of its environment and of its files."""
        return f"transformers-{self.transformers}-torch-{self.torch}"

    def __str__(self) -> str:
        return f"transformers {self.transformers}, torch {self.torch}"


def cells_of(transformers: Sequence[str] = (), torch: Sequence[str] = ()) -> list[ReleaseCell]:
    """Return the cells of the named releases, each with each; a library of which none is named has its newest.

    With nothing named, every release of transformers with the newest torch, and the newest transformers with the older
    torch as well.
    """
    if not transformers and not torch:
        older = [ReleaseCell(TRANSFORMERS[-1], release) for release in TORCH[1:]]
        return [*(ReleaseCell(release, TORCH[0]) for release in TRANSFORMERS), *older]
    pairs = product(transformers or TRANSFORMERS[-1:], torch or TORCH[:1])
    return list(dict.fromkeys(ReleaseCell(*releases) for releases in pairs))


@dataclass(slots=True)
class CellOutcome:
    """The outcome of one cell; a part that was not run is absent from all of its fields.

    `problem` is why the environment could not be made, in a sentence, `problems` why a part of the run gave nothing, by
    part. `types`: verdict and remark by type. `pairs`: by pair and question the verdict, and by measure the largest
    absolute difference of any sample from the baseline. `seconds` by part.
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
        """Add today and the state of the project to those of the parts that are there; forget earlier problems."""
        earlier = self.types is not None or self.pairs is not None
        for name, value in (("date", f"{datetime.now(UTC):%Y-%m-%d}"), ("commit", commit)):
            known = getattr(self, name).split(", ") if earlier else []
            setattr(self, name, ", ".join(dict.fromkeys([*known, value])))
        self.problem, self.problems = "", {}

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Write down the seconds of a block."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[part] = round(time.monotonic() - start, 1)

    def take(self, part: str, file: Path) -> bool:
        """Fill in the JSON record of a part of the run; return False where the file does not exist.

        A damaged one is a problem of the part.
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

    def has(self, part: str) -> bool:
        """Return True if a part of the run is done; pairs that could not be judged are asked again."""
        if part == "sweep":
            return self.types is not None
        return self.pairs is not None and ERROR not in map(self.worst, self.pairs)

    def count(self, verdict: str) -> int | None:
        """Return how many types have this verdict; None where the sweep was not run."""
        return None if self.types is None else sum(entry["verdict"] == verdict for entry in self.types.values())

    def worst(self, pair: str) -> str | None:
        """Return the worst verdict on a pair, `error` where it could not be judged; None where no pair was run."""
        if self.pairs is None:
            return None
        verdicts = set(self.pairs.get(pair, {}).get("verdicts", {ERROR: ERROR}).values())
        return next((verdict for verdict in _ORDER if verdict in verdicts), ERROR)

    def largest(self, measure: str, pair: str | None = None) -> float | None:
        """Return the largest absolute difference of any sample in a measure, over one pair or all; None if unknown."""
        entries = [entry for name, entry in (self.pairs or {}).items() if pair in (None, name)]
        known = [entry["largest"][measure] for entry in entries if entry["largest"].get(measure) is not None]
        return max(known, default=None)

    @property
    def passed(self) -> bool:
        """True if it installs, every part was run to its end, no type failed and no pair differs."""
        settled = {self.worst(pair) for pair in self.pairs or {}}
        return not (self.problem or self.problems or self.count("failed") or settled & {ERROR, str(Verdict.DIFFERS)})


def bundled_pairs() -> list[str]:
    """Return the pairs that need nothing but what the project brings."""
    return [str(Pair(entry.name, dataset)) for entry in MODELS.values() if entry.bundled for dataset in entry.datasets]


def read_pairs(record: Mapping[str, Any], expected: list[str]) -> dict[str, dict[str, Any]]:
    """Return verdicts and largest differences by pair, of a run's JSON record; an expected pair may have none."""
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
    """Write the outcome of a cell."""
    write_atomically(path, dump(asdict(outcome)))


def load_outcome(path: Path, *, anew: bool = False) -> CellOutcome | None:
    """Return the stored outcome of a cell; None where there is none.

    Raises:
        PhaseError: the file is damaged, and the cell is not to be run anew.
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
