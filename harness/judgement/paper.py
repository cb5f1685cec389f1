"""The claims of the paper with their tests (`paper.json`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import PhaseError
from harness.storage.project_files import bundled_baselines

#: The claims belong to the project: profiles with other baselines (`--phase-baselines`) are compared with them too.
CLAIMS_FILE = bundled_baselines() / "paper.json"


class PaperError(PhaseError):
    """The claims of the paper cannot be read."""


@dataclass(frozen=True, slots=True)
class PaperClaim:
    """A claim of the paper and its test.

    `statement` is the paper's sentence and `tested_as` the test. `phase` is the phase concerned. `source` cites the
    paper and the figures that show the tested effect. `readings` are the numbers of the test, chosen by this project:
    shares of the depth or of a curve's range, and minimum sizes.
    """

    statement: str
    tested_as: str
    phase: str
    source: str
    readings: Mapping[str, float]

    def lines(self) -> list[str]:
        """Return two lines for a message: the paper's statement and the test."""
        return [f"the paper ({self.source}): {self.statement}", f"tested as: {self.tested_as}"]


def paper_claims(path: Path = CLAIMS_FILE) -> dict[str, PaperClaim]:
    """Return the claims by the names that cases, baselines and reports use.

    Raises:
        PaperError: the file is missing, is not JSON, or lacks a key, which the message names.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        cited = _cited(content["paper"])
        return {str(name): _claim(claim, cited) for name, claim in content["claims"].items()}
    except OSError as error:
        reason = error.strerror or str(error)
    except (ValueError, TypeError, AttributeError) as error:
        reason = str(error)
    except KeyError as error:
        reason = f"{error} is missing"
    raise PaperError(f"the paper's claims cannot be read from {path} ({reason}): restore it from version control")


def _cited(paper: Mapping[str, Any]) -> str:
    *others, last = (_text(author).split()[-1] for author in paper["authors"])
    names = f"{', '.join(others)} and {last}" if others else last
    return f"{names} {int(paper['year'])}, arXiv {_text(paper['arxiv'])}"


def _claim(claim: Mapping[str, Any], cited: str) -> PaperClaim:
    figures = [str(int(figure)) for figure in claim["figures"]]
    return PaperClaim(
        statement=_text(claim["statement"]),
        tested_as=_text(claim["tested_as"]),
        phase=_text(claim["phase"]),
        source=f"{cited}, figure{'s' if len(figures) > 1 else ''} {', '.join(figures)}",
        readings={str(name): float(value) for name, value in claim["readings"].items()},
    )


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{value!r} is not a text")
    return value
