"""The verdict on one type between two releases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from harness.releases.diff.generation import GenerationCheck
from harness.releases.diff.readings_comparison import Array, Move, compare_readings, is_same, other_shapes
from harness.releases.diff.type_report import (
    COMPLETED,
    LOADED,
    MADE,
    TypeReport,
    TypeState,
    load_arrays,
    load_report,
)
from harness.releases.processors.processor_comparison import compare_processors

_NAMED = 3  # keys or fields that a remark names
# Fields that name a class or a release, and no property of the model.
_LABELS = ("model_type", "transformers_version")


class ReleaseVerdict(StrEnum):
    """The outcome for a type between two releases; of several, the first in this order is the verdict."""

    FAILED = "failed"
    UNMAPPED = "weights not mapped"
    ROUND_TRIP = "not the same after its own round trip"
    MOVED = "moved"
    GENERATION = "generation differs"
    PROCESSOR = "processor changed"
    INPUTS = "inputs changed"
    CONFIGURATION = "configuration changed"
    SAME = "same"
    NEW = "new"
    GONE = "gone"
    FAILED_BEFORE = "failed before"
    REFUSED = "refused"


#: Verdicts that let the command fail: the newer release computes something else, or nothing.
ALARMS = frozenset(
    (
        ReleaseVerdict.FAILED,
        ReleaseVerdict.UNMAPPED,
        ReleaseVerdict.MOVED,
        ReleaseVerdict.GENERATION,
        ReleaseVerdict.PROCESSOR,
    )
)


@dataclass(frozen=True, slots=True)
class TypeChange:
    """The verdict on a type, its moves by prompt (the earliest residual point first), and remarks.

    `processor` is "same", "changed" or "not read".
    """

    model_type: str
    verdict: ReleaseVerdict
    moves: Sequence[Move] = ()
    remarks: Sequence[str] = ()
    processor: str = "not read"

    def record(self) -> dict[str, Any]:
        """Return the change for a JSON record."""
        first = self.moves[0] if self.moves else None
        return {
            "verdict": str(self.verdict),
            "first_point": first.first_point if first else None,
            "largest": _finite(self.largest),
            "relative": _finite(self.relative),
            "quantity": first.quantity if first else None,
            "prompts": {
                move.prompt: {"first_point": move.first_point, "largest": _finite(move.largest)} for move in self.moves
            },
            "processor": self.processor,
            "remarks": list(self.remarks),
        }

    @property
    def largest(self) -> float:
        """The largest absolute difference of a similarity on any prompt."""
        return max((move.largest for move in self.moves), default=0.0)

    @property
    def relative(self) -> float:
        """The largest relative difference of a token's state on any prompt."""
        return max((move.relative for move in self.moves), default=0.0)


def judge_directories(saved: Path, loaded: Path) -> TypeChange:
    """Return the verdict on the type that one release made in `saved` and another one loaded into `loaded`."""
    return judge_type(
        load_report(saved),
        load_report(loaded) or TypeReport(loaded.name, TypeState.FAILED, "its process gave no result"),
        made=load_arrays(saved, MADE),
        saved=load_arrays(saved, LOADED),
        loaded=load_arrays(loaded, LOADED),
        completed=load_arrays(loaded, COMPLETED),
    )


def judge_type(
    before: TypeReport | None,
    after: TypeReport,
    *,
    made: Mapping[str, Array],
    saved: Mapping[str, Array],
    loaded: Mapping[str, Array],
    completed: Mapping[str, Array] | None = None,
) -> TypeChange:
    """Return the verdict on one type.

    Args:
        before: the report of the release that made the type; None if it has no such type.
        after: the report of the other release.
        made: readings of the model before it was saved.
        saved: readings after its own release loaded it again.
        loaded: readings after the other release loaded it.
        completed: the same with token types that only the other release takes.
    """
    name = after.model_type
    if before is None:
        return TypeChange(name, ReleaseVerdict.NEW)
    early = _verdict_without_readings(before, after)
    verdicts, moves = (early, []) if early else _compare_models(before, after, made, saved, loaded, completed or {})
    processor, sentence = _compare_processors(before, after)
    if sentence:
        verdicts[ReleaseVerdict.PROCESSOR] = sentence
    verdict = next((verdict for verdict in ReleaseVerdict if verdict in verdicts), ReleaseVerdict.SAME)
    remarks = [
        verdicts[kind] if kind in (verdict, ReleaseVerdict.SAME) else f"{kind}: {verdicts[kind]}"
        for kind in ReleaseVerdict
        if verdicts.get(kind)
    ]
    return TypeChange(name, verdict, moves, remarks, processor)


def _compare_models(
    before: TypeReport,
    after: TypeReport,
    made: Mapping[str, Array],
    saved: Mapping[str, Array],
    loaded: Mapping[str, Array],
    completed: Mapping[str, Array],
) -> tuple[dict[ReleaseVerdict, str], Sequence[Move]]:
    """Return all verdicts on the models that apply, with a sentence each, and the moves."""
    verdicts: dict[ReleaseVerdict, str] = {}
    moves = compare_readings(saved, loaded)
    if shapes := other_shapes(saved, loaded):
        verdicts[ReleaseVerdict.INPUTS] = "; ".join(shapes)
    if moves and completed:
        verdicts[ReleaseVerdict.INPUTS] = (
            f"without the token types that it now takes, the states move from point {moves[0].first_point} and no "
            f"error is raised (similarity by {max(move.largest for move in moves):.2g})"
        )
        moves = compare_readings(saved, completed)
    rounding, moves = moves, [move for move in moves if not move.is_rounding]
    if rounding and not moves:
        largest = max(move.relative for move in rounding)
        verdicts[ReleaseVerdict.SAME] = (
            f"states differ by {largest:.1e} from point {rounding[0].first_point}, as the same operations in another "
            "order do"
        )
    if moves:
        verdicts[ReleaseVerdict.MOVED] = ""
        if after.missing:
            verdicts[ReleaseVerdict.UNMAPPED] = f"{_name_some(after.missing)} not in the saved file"
    if not is_same(made, saved):
        lost = f": {_name_some(before.missing)} not in the saved file" if before.missing else ""
        verdicts[ReleaseVerdict.ROUND_TRIP] = f"the older release does not load what it saved{lost}"
    if (sentence := _describe_generation(before.generation, after.generation)) is not None:
        verdicts[ReleaseVerdict.GENERATION] = sentence
    if after.inputs:
        verdicts[ReleaseVerdict.INPUTS] = "; ".join(dict.fromkeys(after.inputs.values()))
    if changed := changed_defaults(before.defaults, after.defaults):
        verdicts[ReleaseVerdict.CONFIGURATION] = _name_some(changed)
    if _differs_in_both(before.generation, after.generation):
        assert after.generation is not None
        verdicts[ReleaseVerdict.SAME] = (
            f"cached generation differs from full passes in both releases, by {after.generation.difference:.2g} at "
            f"step {after.generation.step}"
        )
    return verdicts, moves


def changed_defaults(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the default fields that both releases have with different values, each as "name old -> new"."""
    old, new = _flatten(before), _flatten(after)
    return [f"{name} {old[name]} -> {new[name]}" for name in old if name in new and old[name] != new[name]]


def _finite(value: float) -> float | None:
    """Return None for an infinite difference, which JSON cannot represent."""
    return value if math.isfinite(value) else None


def _verdict_without_readings(before: TypeReport, after: TypeReport) -> dict[ReleaseVerdict, str]:
    """Return the verdict on a type that was not read twice, with the reason; nothing if it was."""
    if after.state is TypeState.GONE:
        return {ReleaseVerdict.GONE: ""}
    if before.state is TypeState.REFUSED:
        return {ReleaseVerdict.REFUSED: before.reason}
    if before.state is TypeState.FAILED:
        return {ReleaseVerdict.FAILED_BEFORE: before.reason}
    if after.state is TypeState.REFUSED:
        return {ReleaseVerdict.REFUSED: after.reason}
    if after.state is TypeState.FAILED:
        return {ReleaseVerdict.FAILED: after.reason}
    return {}


def _compare_processors(before: TypeReport, after: TypeReport) -> tuple[str, str]:
    """Return "same", "changed" or "not read", and a sentence if the processor changed."""
    if after.processor is None and before.processor is not None and after.unread:
        return "changed", f"the saved processor cannot be loaded: {after.unread}"
    # A processor without cases needs a library that is not installed.
    if before.processor is None or after.processor is None or not (before.processor.cases and after.processor.cases):
        return "not read", ""
    comparison = compare_processors(before.processor, after.processor)
    return ("changed", comparison.sentence) if comparison.changes else ("same", "")


def _describe_generation(before: GenerationCheck | None, after: GenerationCheck | None) -> str | None:
    """Return a sentence if cached generation differs from full passes in the newer release only."""
    if before is None or after is None or not after.differs or before.differs:
        return None
    return (
        f"the logits of cached step {after.step} differ by {after.difference:.2g} from those of a full pass (step 0 is "
        f"the prefill){f': {after.remark}' if after.remark else ''}"
    )


def _differs_in_both(before: GenerationCheck | None, after: GenerationCheck | None) -> bool:
    return before is not None and after is not None and before.differs and after.differs


def _name_some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _flatten(fields: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{path}{name}.")
        else:
            flat[f"{path}{name}"] = value
    return {name: value for name, value in flat.items() if name.split(".")[-1] not in _LABELS}
