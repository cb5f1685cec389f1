"""A verdict as the summary and the record show it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.storage.file_names import short_name

if TYPE_CHECKING:
    from harness.judgement.evidence import Evidence
    from harness.profile.pair import Pair


@dataclass(frozen=True, slots=True)
class VerdictLine:
    """One verdict as the summary shows it: of `pair`, in answer to `question` (a claim's or a family's name).

    `numbers` go into the JSON; `evidence` are those that a reader is shown, what decided first. `changed` says that
    something is certainly not the baseline's: it differs, or is no longer the same where that was asked.
    """

    pair: Pair
    kind: str
    question: str
    verdict: str
    numbers: Mapping[str, Any]
    evidence: tuple[Evidence, ...] = ()
    changed: bool = False


def changed_questions(lines: Iterable[VerdictLine]) -> str:
    """Return the questions whose numbers are certainly not the baseline's, by pair; empty if there are none."""
    changed: dict[Pair, list[str]] = {}
    for line in lines:
        if line.changed:
            words = "differs" if line.verdict == "differs" else "is not the same"
            changed.setdefault(line.pair, []).append(f"{line.question} {words}")
    return "; ".join(f"{short_name(str(pair))}: {', '.join(questions)}" for pair, questions in changed.items())
