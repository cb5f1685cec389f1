"""Comparison of the readings of two releases: the first residual point that moved, and by how much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: States, attention shares and logits that differ relatively by more than this have moved.
TOLERANCE = 1e-5
# The same operations in another order: up to these relative differences of states and logits, and of similarities.
_ROUNDING, _SIMILARITY_ROUNDING = 1e-4, 1e-6
# A state with less than this share of the largest norm is compared with that share.
_SMALLEST_NORM = 1e-6

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Move:
    """A difference between two releases on one prompt.

    `first_point` is the first residual point at which a token's state differs, 0 to L; the number of points if only
    the output differs. `largest` is the largest absolute difference of a similarity at any point. `relative` is the
    largest relative difference of a token's state. `quantity` names what differs first. `is_rounding` is True if all
    differences are as small as those of the same operations in another order.
    """

    prompt: str
    first_point: int
    largest: float
    relative: float
    quantity: str
    is_rounding: bool = False


def compare_readings(before: Mapping[str, Array], after: Mapping[str, Array]) -> list[Move]:
    """Return the moves, one per prompt that both releases read, the earliest residual point first.

    Args:
        before: arrays named "prompt/reading", as `read_prompt` returns them.
        after: those of the other release.

    Prompts with readings of another shape are left out; `other_shapes` has them.
    """
    moves = []
    for prompt in _prompts(before):
        pair = [_readings_of(arrays, prompt) for arrays in (before, after)]
        if pair[1] and _other_shape(*pair) is None:
            move = _compare_prompt(prompt, *pair)
            moves += [move] if move else []
    return sorted(moves, key=lambda move: move.first_point)


def other_shapes(before: Mapping[str, Array], after: Mapping[str, Array]) -> list[str]:
    """Return a sentence for each prompt whose readings have another shape in the newer release."""
    sentences = []
    for prompt in _prompts(before):
        pair = [_readings_of(arrays, prompt) for arrays in (before, after)]
        name = _other_shape(*pair)
        if name is not None:
            shapes = " -> ".join(str(arrays[name].shape) for arrays in pair)
            sentences.append(f"{name} of the prompt {prompt!r} have another shape: {shapes}")
    return sentences


def is_same(before: Mapping[str, Array], after: Mapping[str, Array]) -> bool:
    """Return True if the readings of two releases can be compared and nothing moved by more than rounding."""
    return all(move.is_rounding for move in compare_readings(before, after)) and not other_shapes(before, after)


def _prompts(arrays: Mapping[str, Array]) -> list[str]:
    return list(dict.fromkeys(name.split("/")[0] for name in arrays))


def _other_shape(before: Mapping[str, Array], after: Mapping[str, Array]) -> str | None:
    return next((name for name in before if name in after and before[name].shape != after[name].shape), None)


def _readings_of(arrays: Mapping[str, Array], prompt: str) -> dict[str, Array]:
    return {name.split("/", 1)[1]: value for name, value in arrays.items() if name.split("/")[0] == prompt}


def _compare_prompt(prompt: str, before: Mapping[str, Array], after: Mapping[str, Array]) -> Move | None:
    states = _relative(before["states"], after["states"])
    moved = [point for point in range(len(states)) if not states[point].max() <= TOLERANCE]
    logits = _relative(before["logits"], after["logits"])
    if not moved and bool((logits <= TOLERANCE).all()):
        return None
    first = moved[0] if moved else len(states)
    largest = _largest(before["similarity"], after["similarity"])
    relative, of_logits = (float(np.nan_to_num(values, nan=np.inf).max()) for values in (states, logits))
    return Move(
        prompt=prompt,
        first_point=first,
        largest=largest,
        relative=relative,
        is_rounding=max(relative, of_logits) <= _ROUNDING and largest <= _SIMILARITY_ROUNDING,
        quantity=_first_quantity(first, len(states), states, before, after),
    )


def _first_quantity(
    first: int, points: int, states: Array, before: Mapping[str, Array], after: Mapping[str, Array]
) -> str:
    if first == points:
        return "logits"
    if first == 0:
        moved = ~(states[0] <= TOLERANCE)
        return "vision features" if bool((moved & before["image"]).any()) else "text embeddings"
    shares = [name for name in ("weight_shares", "norm_shares") if name in before and name in after]
    layer = first - 1
    changed = any(not _largest(before[name][:, layer], after[name][:, layer]) <= TOLERANCE for name in shares)
    return "attention" if changed else "states"


def _relative(before: Array, after: Array) -> Array:
    """Return the norm of the difference along the last axis, relative to the norm before."""
    norm = np.linalg.norm(before.astype(np.float64), axis=-1)
    difference = np.linalg.norm(after.astype(np.float64) - before, axis=-1)
    smallest = max(_SMALLEST_NORM * float(np.nan_to_num(norm).max(initial=0.0)), np.finfo(np.float64).tiny)
    # Padding is zero in both.
    return np.where(difference == 0, 0.0, difference / np.maximum(norm, smallest))


def _largest(before: Array, after: Array) -> float:
    difference = np.abs(after.astype(np.float64) - before)
    # Undefined in both: a group without tokens.
    difference = np.where(np.isnan(before) & np.isnan(after), 0.0, difference)
    return float(np.nan_to_num(difference, nan=np.inf).max(initial=0.0))
