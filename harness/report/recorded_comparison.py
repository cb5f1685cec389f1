"""The comparison of two models from a record, the inverse of `side_by_side_record`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.analysis.margins import Pairing
from harness.analysis.mean_difference import Verdict, View
from harness.analysis.turning_points import BoundaryInterval
from harness.judgement.pairing import InputMatch
from harness.judgement.phases import CLAIM_NAMES
from harness.judgement.regression import Finding
from harness.judgement.side_by_side import ComparedModel, SideBySide
from harness.judgement.weights import WeightChange
from harness.profile.configuration_changes import ConfigurationChanges
from harness.profile.measures import MEASURES
from harness.report.against import ModelComparison
from harness.report.recorded_pairs import recorded_traces
from harness.report.recorded_verdicts import number, recorded_finding
from harness.report.verdict_words import QUESTIONS


@dataclass(frozen=True, slots=True)
class RecordedInputs(InputMatch):
    """The common samples of two models from a record, with the recorded description of changed inputs."""

    description: str = ""

    @property
    def changed(self) -> str:
        """The description of the changed inputs; empty if none changed."""
        return self.description


def recorded_comparison(entry: Mapping[str, Any]) -> ModelComparison:
    """Return the comparison of two models.

    Args:
        entry: an item of `against` in a record.

    Raises:
        KeyError, TypeError, ValueError: the entry is damaged.
    """
    common = np.arange(int(entry["common_samples"]))
    lines, (changed, added, _) = tuple(map(str, entry["configuration"])), entry["configuration_counts"]
    weights = entry["weights"]
    return ModelComparison(
        SideBySide(
            dataset=str(entry["dataset"]),
            measured=_side(entry, "model"),
            other=_side(entry, "against"),
            inputs=RecordedInputs(
                Pairing(common, common, (), bool(entry["paired"]), ""), (), (), True, True, str(entry["inputs"])
            ),
            configuration=ConfigurationChanges(
                lines[:changed], lines[changed : changed + added], lines[changed + added :]
            ),
            environment=tuple(map(str, entry["environment"])),
            verdicts={name: Verdict(entry["verdicts"][name]) for name in QUESTIONS if name in entry["verdicts"]},
            traces=recorded_traces(entry["same_until"]),
            not_traced=str(entry["not_traced"]),
            beyond_margin=tuple(map(_finding, entry["beyond_margin"])),
            weights=None if weights is None else _weight_change(weights),
        )
    )


def _weight_change(entry: Mapping[str, Any]) -> WeightChange:
    values: dict[str, Any] = {name: value if name == "reason" else tuple(value) for name, value in entry.items()}
    return WeightChange(**values)


def _side(entry: Mapping[str, Any], role: str) -> ComparedModel:
    name = str(entry[role])
    side = entry["models"][name]
    return ComparedModel(
        model=name,
        n=int(side["n"]),
        depth=int(side["layers"]),
        prompt=str(side["prompt"]),
        first_token=str(side["first_token"]),
        turning_points=tuple(BoundaryInterval(*map(number, point)) for point in side["turning_points"]),
        segments=int(side["confirmed_segment_count"]),
        claims={name: str(side["claims"][name]) for name in CLAIM_NAMES if name in side["claims"]},
    )


def _finding(entry: Mapping[str, Any]) -> Finding:
    """Return a measure that differs; the record of a comparison has its positions, largest difference and margin."""
    measure = next(
        measure for measure in MEASURES.values() if (measure.family, measure.title) == (entry["family"], entry["title"])
    )
    first = measure.axis.first
    numbers = {
        "verdict": Verdict.DIFFERS,
        "view": View.LEVEL,
        "paired": True,
        "n": 0,
        "layers": [int(position) - first for position in entry["positions"]],
        "layer": int(entry["at"]) - first,
        "effect": entry["effect"],
        "interval": (None, None),
        "margin": entry["margin"],
        "needed": None,
        "reproduced": None,
        "beyond_tolerance": 0,
        "largest": None,
        "compared": 0,
        "tolerance": {"amount": None, "share": 1.0, "reason": "", "noise": None},
    }
    return recorded_finding(measure, numbers)
