"""The matrix as tables, its findings as sentences, and the page with both."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import shorten

from harness.releases.release_outputs import format_table
from harness.releases.versions.cell_outcome import ERROR, CellOutcome, ReleaseCell
from harness.storage.templates import render

_TYPE_VERDICTS = ("measured", "refused", "failed")
#: Measures whose differences are printed for each pair: similarity, norm-based attention and recall.
_MEASURES = ("inter", "inter_adjusted", "image", "text", "norm_image", "recall_5")
_LIBRARIES = ("transformers", "torch", "accelerate", "huggingface-hub")
_ABSENT = {"verdict": "not shipped", "remark": ""}
_LONGEST = 160  # characters per remark


def matrix_table(outcomes: Sequence[CellOutcome], *, markdown: bool = False) -> str:
    """Return the matrix: releases, installation, types by verdict, worst verdict of each pair, largest difference.

    A cell without an environment has the reason instead of "yes".
    """
    pairs = _pairs_of(outcomes)
    headers = ["transformers", "torch", "installs", *_TYPE_VERDICTS, *pairs, "largest in inter", "seconds"]
    rows = [
        [
            *(outcome.cell.transformers, outcome.cell.torch),
            f"no: {outcome.problem}" if outcome.problem else "yes",
            *map(outcome.count_types, _TYPE_VERDICTS),
            *map(outcome.worst_verdict, pairs),
            _format_difference(outcome.largest_difference("inter")),
            f"{sum(outcome.seconds.values()):.0f}",
        ]
        for outcome in outcomes
    ]
    return format_table(rows, headers, markdown=markdown)


def pairs_table(outcomes: Sequence[CellOutcome], *, markdown: bool = False) -> str:
    """Return a row per cell and pair: questions that do not reproduce, and the largest differences by measure."""
    rows = [
        [
            *(outcome.cell.transformers, outcome.cell.torch, pair),
            ", ".join(f"{question} ({verdict})" for question, verdict in _not_reproduced(outcome, pair)) or "nothing",
            *(_format_difference(outcome.largest_difference(measure, pair)) for measure in _MEASURES),
        ]
        for outcome in outcomes
        for pair in outcome.pairs or {}
    ]
    headers = ["transformers", "torch", "pair", "not reproduced", *_MEASURES]
    return format_table(rows, headers, markdown=markdown)


def findings(outcomes: Sequence[CellOutcome]) -> list[str]:
    """Return a sentence per finding: cells without environment, parts without result, pairs, then types."""
    return [
        *(f"{outcome.problem.rstrip('.')}." for outcome in outcomes if outcome.problem),
        *(
            f"{outcome.cell}: {part} gave no result ({problem})."
            for outcome in outcomes
            for part, problem in outcome.problems.items()
        ),
        *_findings_of_pairs([outcome for outcome in outcomes if outcome.pairs]),
        *_findings_of_types([outcome for outcome in outcomes if outcome.types is not None]),
    ]


def versions_page(outcomes: Sequence[CellOutcome], command: str, checkout: Path) -> str:
    """Return the page in Markdown."""
    data = {
        "command": command,
        "ranges": ", ".join(supported_ranges(checkout)),
        "matrix": matrix_table(outcomes, markdown=True),
        "pairs": pairs_table(outcomes, markdown=True),
        "findings": findings(outcomes),
        "dates": _join_distinct(outcome.date for outcome in outcomes),
        "device": _join_distinct(outcome.device for outcome in outcomes),
        "python": _join_distinct(outcome.python for outcome in outcomes),
        "commit": _join_distinct(outcome.commit for outcome in outcomes),
    }
    return render("harness.releases.versions", "versions.md.jinja", data)


def supported_ranges(checkout: Path) -> list[str]:
    """Return the version ranges that pyproject.toml declares for the relevant libraries."""
    declared = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    return [line for line in declared if line.split(">=")[0] in _LIBRARIES]


def _findings_of_pairs(judged: Sequence[CellOutcome]) -> list[str]:
    sentences = []
    for outcome, pair in ((cell, pair) for cell in judged for pair in cell.pairs or {}):
        changed, largest = _not_reproduced(outcome, pair), outcome.largest_difference("inter", pair)
        if outcome.worst_verdict(pair) == ERROR:
            sentences.append(f"{outcome.cell}: {pair} could not be judged; see the cell's log.")
        elif changed:
            verdicts = ", ".join(f"{question} {verdict}" for question, verdict in changed)
            if largest is not None:
                verdicts += f"; the most distant sample is off by {largest:.2g} in inter-modal similarity"
            sentences.append(f"{outcome.cell}: {pair} does not reproduce ({verdicts}).")
    if sentences or not judged:
        return sentences
    farthest = max(judged, key=lambda outcome: outcome.largest_difference("inter") or 0.0)
    cells = f"all {len(judged)} cells" if len(judged) > 1 else "the one cell"
    return [
        f"All {len(_pairs_of(judged))} bundled pairs reproduce sample by sample in {cells}; the largest difference of "
        f"any sample in inter-modal similarity is {farthest.largest_difference('inter') or 0.0:.2g} ({farthest.cell})."
    ]


def _findings_of_types(swept: Sequence[CellOutcome]) -> list[str]:
    names = sorted({name for outcome in swept for name in outcome.types or {}})
    changing: list[str] = []
    absent: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        cells: dict[str, list[ReleaseCell]] = {}
        reasons: dict[str, str] = {}
        for outcome in swept:
            entry = (outcome.types or {}).get(name, _ABSENT)
            cells.setdefault(entry["verdict"], []).append(outcome.cell)
            remark = shorten(entry["remark"].rstrip("."), _LONGEST, placeholder=" ...")
            reasons.setdefault(entry["verdict"], f" ({remark})" if remark and entry["verdict"] != "measured" else "")
        missing = cells.pop(_ABSENT["verdict"], [])
        if len(cells) > 1:
            parts = (
                f"{verdict} with {'; '.join(map(str, users))}{reasons[verdict]}" for verdict, users in cells.items()
            )
            changing.append(f"`{name}`: {', '.join(parts)}.")
        if missing:
            absent.setdefault(tuple(dict.fromkeys(cell.transformers for cell in missing)), []).append(f"`{name}`")
    constant = f"{len(names) - len(changing)} of {len(names)} types have one verdict in every cell that ships them."
    return [
        *([constant] if len(swept) > 1 else []),
        *changing,
        *(f"Not shipped with transformers {', '.join(old)}: {', '.join(types)}." for old, types in absent.items()),
    ]


def _pairs_of(outcomes: Sequence[CellOutcome]) -> list[str]:
    return list(dict.fromkeys(pair for outcome in outcomes for pair in outcome.pairs or {}))


def _not_reproduced(outcome: CellOutcome, pair: str) -> list[tuple[str, str]]:
    verdicts = (outcome.pairs or {})[pair]["verdicts"]
    return [(question, verdict) for question, verdict in verdicts.items() if verdict != "reproduces"]


def _format_difference(value: float | None) -> str | None:
    return None if value is None else f"{value:.1e}" if value else "0"


def _join_distinct(values: Iterable[str]) -> str:
    return ", ".join(sorted({part for value in values for part in value.split(", ") if part}))
