"""What a pair was held against, as a figure shows it: the baseline's curves, and the layers at which they differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.analysis.mean_difference import Verdict
from harness.judgement.regression import Finding
from harness.judgement.results import Result
from harness.profile.profile import Profile


@dataclass(frozen=True, slots=True)
class Mark:
    """The places of a measure that a verdict names: indices into its curve."""

    verdict: str
    places: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """A stored baseline, or another model, whose curves are laid under a profile's; `name` is what legends call it.

    `marks` holds, per measure, where it differs, or where it is no longer the same.
    """

    profile: Profile
    name: str = "baseline"
    marks: Mapping[str, Mark] = field(default_factory=dict)

    def mean(self, measure: str) -> Any:
        """The mean curve of a measure, float (places,)."""
        return self.profile[measure].mean(0)


def marks_of(results: Iterable[Result]) -> dict[str, Mark]:
    """The places of each measure that is not the same, of the verdicts on one pair."""
    return {
        part.source.measure.name: Mark(part.word, part.source.agreement.layers)
        for result in results
        for part in result.parts
        if isinstance(part.source, Finding) and part.word in (Verdict.DIFFERS, Verdict.EQUIVALENT)
    }
