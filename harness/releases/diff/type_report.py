"""The outcome for one type in one release, and the directory with its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.releases.diff.generation import GenerationCheck
from harness.releases.processors.processor_readings import ProcessorReadings

#: Names of the readings: of the model as made, and after its own release or another one loaded it.
MADE, LOADED = "made", "loaded"
#: The name of the readings with token types that only the newer release takes, besides the saved inputs.
COMPLETED = "completed"
_REPORT = "report.json"


class TypeState(StrEnum):
    """The state of a type in one release."""

    READ = "read"
    REFUSED = "refused"
    FAILED = "failed"
    GONE = "gone"


@dataclass(slots=True)
class TypeReport:
    """The outcome for a type in a release.

    Attributes:
        model_type: the type.
        state: `read`; `refused` if the harness cannot measure the type or a library is missing; `failed` after an error
            in the release's own code; `gone` if the release has no such type.
        reason: the reason for any other state than `read`.
        missing: weights that have no value in the saved file.
        inputs: by prompt, a sentence on the inputs that changed because the release refuses the saved ones.
        skipped: by prompt, the reason why the model refuses it.
        generation: cached steps compared with full passes.
        processor: readings of the type's processor.
        unread: the reason if there are none.
        defaults: the type's default configuration.
        seconds: duration of the work on the type.
    """

    model_type: str
    state: TypeState = TypeState.READ
    reason: str = ""
    missing: list[str] = field(default_factory=list)
    inputs: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    generation: GenerationCheck | None = None
    processor: ProcessorReadings | None = None
    unread: str = ""
    defaults: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


def save_report(directory: Path, report: TypeReport) -> None:
    """Write the report; it is the last file of a type, so a directory with a report is complete."""
    directory.mkdir(parents=True, exist_ok=True)
    # A difference may be NaN, so this is not the canonical JSON.
    processor = report.processor and report.processor.record()
    content = asdict(replace(report, processor=None)) | {"processor": processor}
    (directory / _REPORT).write_text(json.dumps(content), encoding="utf-8")


def load_report(directory: Path) -> TypeReport | None:
    """Return the report in a type's directory, or None if there is none."""
    try:
        content = json.loads((directory / _REPORT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    content["state"] = TypeState(content["state"])
    content["generation"] = content["generation"] and GenerationCheck(**content["generation"])
    content["processor"] = content["processor"] and ProcessorReadings.from_record(content["processor"])
    return TypeReport(**content)


def save_arrays(directory: Path, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays by name to a file in a type's directory."""
    np.savez(directory / f"{name}.npz", **arrays)  # type: ignore[arg-type]


def load_arrays(directory: Path, name: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file in a type's directory; none if there is no such file."""
    path = directory / f"{name}.npz"
    if not path.exists():
        return {}
    with np.load(path) as file:
        return dict(file)
