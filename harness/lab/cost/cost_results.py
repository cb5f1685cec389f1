"""Results of a run of the benchmark, as they are stored in a JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import PhaseError
from harness.lab.cost.race import Times

SCHEMA = 2
#: The kinds of cells: small and published models with random weights, and a bundled model with its own samples.
SMALL_KIND, FULL_WIDTH, PAIR = "small", "full width", "pair"


class ResultsError(PhaseError):
    """A file that holds no usable results; the message states the reason."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A model with one batch; `kind` is one of the kinds above, `label` the model's display name."""

    kind: str
    label: str
    tokens: int
    image_tokens: int
    layers: int
    batch: int

    @property
    def title(self) -> str:
        """The display name of the cell."""
        batch = "" if self.batch == 1 else f"{self.batch} x "
        return f"{self.label}, {self.layers} layers, {batch}{self.tokens} tokens"


@dataclass(frozen=True, slots=True)
class CellResult:
    """The measurements of one cell.

    times: seconds per round for each contestant, None for a skipped round. peaks: peak bytes of a forward pass
    beyond the memory in use before. weights: bytes of the model's parameters. left_open: share of image tokens x
    residual points for which the lens had to read the full vocabulary, None where no lens ran. absent: the reason why
    a contestant has no times.
    """

    cell: Cell
    times: Times
    peaks: Mapping[str, int]
    weights: int
    left_open: float | None
    absent: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MeasurementTime:
    """Seconds of the full measurements of a pair.

    `first` measures everything anew, and `forward` is the part of it in the model's forward passes. `warm` reads
    everything from the cache. `plain` is the time of the model's forward passes alone over the same samples.
    """

    label: str
    samples: int
    first: float
    forward: float
    warm: float
    plain: float

    @property
    def share(self) -> float:
        """The share of the first measurement that is spent outside the model's forward passes."""
        return 1.0 - self.forward / self.first


@dataclass(frozen=True, slots=True)
class CostRun:
    """The results of one command with their provenance: date (UTC), command, device, dtype, threads and versions.

    `test_seconds` is the duration of the project's tests on the same machine, None if it is not known.
    """

    date: str
    command: str
    device: str
    device_name: str
    dtype: str
    threads: int
    versions: Mapping[str, str]
    seconds: float
    cells: tuple[CellResult, ...]
    measurements: tuple[MeasurementTime, ...] = ()
    test_seconds: float | None = None


def to_json(run: CostRun) -> str:
    """Return the run as JSON, with times rounded to microseconds."""
    content = {"schema": SCHEMA, **asdict(run)}
    for cell in content["cells"]:
        cell["times"] = {
            name: [None if value is None else round(value, 6) for value in values]
            for name, values in cell["times"].items()
        }
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def read_run(path: Path) -> CostRun:
    """Return the run that `to_json` wrote.

    Raises:
        ResultsError: the file cannot be read or holds other content.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("schema") != SCHEMA:
            raise ResultsError(f"{path} was written by another version of this benchmark; measure again")
        cells = tuple(CellResult(**{**cell, "cell": Cell(**cell["cell"])}) for cell in content.pop("cells"))
        measurements = tuple(MeasurementTime(**entry) for entry in content.pop("measurements"))
        return CostRun(**content, cells=cells, measurements=measurements)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error) or type(error).__name__
        raise ResultsError(f"{path} holds no results of this benchmark ({reason}); write some with --json") from None
