"""The words of verdicts and the titles of questions, each with all that readers are shown of it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from harness.profile.measures import FAMILIES

GOOD, OPEN, BAD = "green", "yellow", "red"


class VerdictWord(NamedTuple):
    """A verdict's colour in a terminal, its sign in ASCII, and its meaning, whatever it is said of."""

    colour: str
    mark: str
    meaning: str

    @property
    def sign(self) -> str:
        """The sign on a page, so that a verdict is not told by colour alone."""
        return {"-": "\N{MINUS SIGN}", "~": "\N{ALMOST EQUAL TO}"}.get(self.mark, self.mark)


VERDICTS: Mapping[str, VerdictWord] = MappingProxyType(
    {
        "holds": VerdictWord(
            GOOD, "+", "The paper's claim holds for this model on this data; every part of it is certain."
        ),
        "fails": VerdictWord(BAD, "-", "A part of the paper's claim is certainly not so for this model on this data."),
        "reproduces": VerdictWord(
            GOOD, "=", "The same numbers as the baseline, sample by sample, within the tolerance."
        ),
        "equivalent": VerdictWord(
            GOOD, "~", "No longer the same sample by sample, but the mean is certainly within the margin everywhere."
        ),
        "differs": VerdictWord(
            BAD, "!", "The mean certainly moved by more than the margin at some layer, all layers considered together."
        ),
        "inconclusive": VerdictWord(OPEN, "?", "The samples do not decide; more of them would."),
    }
)
QUESTIONS: Mapping[str, str] = MappingProxyType(
    {name: family.title for name, family in FAMILIES.items()}
    | {"boundaries": "layers that separate the phases", "intervals": "what holds within each phase"}
)
