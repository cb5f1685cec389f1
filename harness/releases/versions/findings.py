"""What the matrix says, in sentences: types whose verdict is not the same everywhere, pairs that do not reproduce."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import shorten

from harness.releases.versions.matrix import not_reproduced, pairs_of
from harness.releases.versions.outcome import ERROR, Outcome

_ABSENT = "not shipped"
_LONGEST = 160  # characters of a remark


def findings(outcomes: Sequence[Outcome]) -> list[str]:
    """One sentence per finding: cells without an environment, parts that gave nothing, pairs, then types."""
    gone = [f"{told.cell} {told.problem.rstrip('.')}." for told in outcomes if told.problem]
    broken = [
        f"{told.cell}: {part} gave nothing ({problem})." for told in outcomes for part, problem in told.problems.items()
    ]
    return [*gone, *broken, *_of_pairs(outcomes), *_of_types(outcomes)]


def _of_pairs(outcomes: Sequence[Outcome]) -> list[str]:
    judged = [told for told in outcomes if told.pairs]
    said = []
    for told in judged:
        for pair in told.pairs or {}:
            open_ = not_reproduced(told, pair)
            if told.worst(pair) == ERROR:
                said.append(f"{told.cell}: {pair} could not be judged; the cell's log says why.")
            elif open_:
                answers = ", ".join(f"{question} {verdict}" for question, verdict in open_)
                far = told.largest("inter", pair)
                off = "" if far is None else f"; the most distant sample is off by {far:.2g} in inter-modal similarity"
                said.append(f"{told.cell}: {pair} does not reproduce ({answers}{off}).")
    if not judged or said:
        return said
    largest = [(told.largest("inter") or 0.0, told) for told in judged]
    amount, where = max(largest, key=lambda one: one[0])
    cells = f"all {len(judged)} cells" if len(judged) > 1 else "the one cell"
    return [
        f"All {len(pairs_of(judged))} embedded pairs reproduce sample by sample in {cells}; the largest difference of "
        f"any sample in inter-modal similarity is {amount:.2g} ({where.cell})."
    ]


def _of_types(outcomes: Sequence[Outcome]) -> list[str]:
    swept = [told for told in outcomes if told.types is not None]
    names = sorted({name for told in swept for name in told.types or {}})
    changing: list[str] = []
    young: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        given = [(told, (told.types or {}).get(name, {"verdict": _ABSENT, "remark": ""})) for told in swept]
        verdicts = {entry["verdict"] for _, entry in given} - {_ABSENT}
        if len(verdicts) > 1:
            changing.append(f"`{name}`: {_by_verdict(given)}.")
        missing = [told.cell for told, entry in given if entry["verdict"] == _ABSENT]
        if missing:
            young.setdefault(tuple(dict.fromkeys(cell.transformers for cell in missing)), []).append(name)
    same = len(names) - len(changing)
    said = [f"{same} of {len(names)} types have one verdict in every cell that ships them."] if len(swept) > 1 else []
    said += changing
    for releases, types in young.items():
        said.append(f"Not shipped with transformers {', '.join(releases)}: {', '.join(f'`{name}`' for name in types)}.")
    return said


def _by_verdict(given: Sequence[tuple[Outcome, Mapping[str, str]]]) -> str:
    parts = []
    for verdict in dict.fromkeys(entry["verdict"] for _, entry in given if entry["verdict"] != _ABSENT):
        cells = [told.cell for told, entry in given if entry["verdict"] == verdict]
        remark = next(entry["remark"] for _, entry in given if entry["verdict"] == verdict)
        remark = shorten(remark.rstrip("."), _LONGEST, placeholder=" ...")
        reason = f" ({remark})" if remark and verdict != "measured" else ""
        parts.append(f"{verdict} with {'; '.join(map(str, cells))}{reason}")
    return ", ".join(parts)
