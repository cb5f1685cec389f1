"""What a cell gave: whether it installs, the verdict on every type, the verdicts on every embedded pair."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.analysis.mean_difference import Verdict
from harness.errors import PhaseError
from harness.releases.versions.release_cells import Cell
from harness.storage.files import write_atomically
from harness.storage.json_text import dump

ERROR = "error"
TYPE_VERDICTS = ("measured", "refused", "failed")
# The worst first: what is said of a pair is what the worst of its answers says.
_ORDER = (ERROR, *map(str, (Verdict.DIFFERS, Verdict.INCONCLUSIVE, Verdict.EQUIVALENT, Verdict.REPRODUCES)))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one cell gave; a part that was not run is absent from all of its fields.

    `problem` is why the environment could not be made, in a sentence, `problems` why a part of the run gave nothing, by
    part. `types`: verdict and remark by type. `pairs`: by pair and question the verdict, and by measure the largest
    absolute difference of any sample from the baseline. `seconds` by part.
    """

    cell: Cell
    date: str
    commit: str
    python: str
    device: str
    problem: str = ""
    problems: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, Mapping[str, str]] | None = None
    pairs: Mapping[str, Mapping[str, Any]] | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)

    def has(self, part: str) -> bool:
        """Whether a part of the run is done; pairs that could not be judged are asked again."""
        if part == "sweep":
            return self.types is not None
        return self.pairs is not None and ERROR not in map(self.worst, self.pairs)

    def count(self, verdict: str) -> int | None:
        """How many types have this verdict; None where the sweep was not run."""
        return None if self.types is None else sum(told["verdict"] == verdict for told in self.types.values())

    def worst(self, pair: str) -> str | None:
        """The worst verdict on a pair, `error` where it could not be judged; None where the pairs were not run."""
        if self.pairs is None:
            return None
        given = set(self.pairs.get(pair, {}).get("verdicts", {ERROR: ERROR}).values())
        return next((verdict for verdict in _ORDER if verdict in given), ERROR)

    def largest(self, measure: str, pair: str | None = None) -> float | None:
        """The largest absolute difference of any sample in a measure, over one pair or all; None where unknown."""
        told = [found for name, found in (self.pairs or {}).items() if pair in (None, name)]
        known = [found["largest"][measure] for found in told if found["largest"].get(measure) is not None]
        return max(known, default=None)

    @property
    def passed(self) -> bool:
        """Whether it installs, every part was run to its end, no type failed and no pair differs."""
        settled = {self.worst(pair) for pair in self.pairs or {}}
        return not (self.problem or self.problems or self.count("failed") or settled & {ERROR, str(Verdict.DIFFERS)})


def read_pairs(record: Mapping[str, Any], expected: list[str]) -> dict[str, dict[str, Any]]:
    """The verdicts and largest differences by pair, of a run's JSON record; an expected pair may have none."""
    pairs: dict[str, dict[str, Any]] = {pair: {"verdicts": {}, "largest": {}} for pair in expected}
    for line in record["verdicts"]:
        told = pairs.setdefault(line["pair"], {"verdicts": {}, "largest": {}})
        told["verdicts"][line["question"]] = line["verdict"]
        for measure, numbers in line["numbers"].items():
            if isinstance(numbers, Mapping) and "largest" in numbers:
                told["largest"][measure] = numbers["largest"]
    for told in pairs.values():
        if not told["verdicts"]:
            told["verdicts"] = {ERROR: ERROR}
    return pairs


def save_outcome(path: Path, outcome: Outcome) -> None:
    """Writes the outcome of a cell."""
    write_atomically(path, dump(asdict(outcome)))


def load_outcome(path: Path) -> Outcome | None:
    """The stored outcome of a cell; None where there is none.

    Raises:
        PhaseError: the file is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return replace(Outcome(**content), cell=Cell(**content["cell"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PhaseError(f"{path} cannot be read ({error}); delete it or run with --anew") from None
