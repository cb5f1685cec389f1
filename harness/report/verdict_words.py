"""The verdicts with colour, sign and meaning, and the titles of the questions."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from harness.profile.measures import FAMILIES

GOOD, OPEN, BAD = "green", "yellow", "red"


class VerdictWord(NamedTuple):
    """A verdict's colour in a terminal, its ASCII sign, and its meaning for any question."""

    colour: str
    mark: str
    meaning: str

    @property
    def sign(self) -> str:
        """The sign on the page, so that verdicts do not differ by colour only."""
        return {"-": "\N{MINUS SIGN}", "~": "\N{ALMOST EQUAL TO}"}.get(self.mark, self.mark)


VERDICTS: Mapping[str, VerdictWord] = MappingProxyType(
    {
        "holds": VerdictWord(GOOD, "+", "All parts of the paper's claim are confirmed for this model on this data."),
        "fails": VerdictWord(
            BAD, "-", "A part of the paper's claim is confirmed to be false for this model on this data."
        ),
        "reproduces": VerdictWord(GOOD, "=", "Every sample is the same as in the baseline, within the tolerance."),
        "equivalent": VerdictWord(
            GOOD, "~", "Samples changed, but the mean change is confirmed to lie within the margin at every layer."
        ),
        "differs": VerdictWord(
            BAD,
            "!",
            "The mean change is confirmed to exceed the margin at some layer, with all layers tested together.",
        ),
        "inconclusive": VerdictWord(OPEN, "?", "The samples confirm neither answer; more samples are needed."),
        "not compared": VerdictWord("", "", "No measure of this question is both in the run and in the baseline."),
    }
)
QUESTIONS: Mapping[str, str] = MappingProxyType(
    {name: family.title for name, family in FAMILIES.items()}
    | {"boundaries": "phase boundaries", "intervals": "presence and monotonicity of each phase"}
)
