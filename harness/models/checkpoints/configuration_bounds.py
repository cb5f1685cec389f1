"""Numbers in config.json that no model has: refused before a model is built from them, which would not end."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

from harness.models.weights_error import WeightsError

# Keys of counts: layers, and what else a model has one after the other; those of heads in each layer are no counts.
_LAYERS = re.compile(r"(?!\w*per_)((num|n)_\w*(layers?|blocks?|stages?)|\w*layers|depths?|\w*blocks)")
_EXPERTS = re.compile(r"(?!\w*per_)((num|n)_\w*experts|\w*experts)")
# Keys of lists in which numbers add up; others list positions.
_ADDED = re.compile(r"(num|n)_\w*|depths?|\w*blocks")
# The most that a number may be. The largest published models have 126 layers, 16,384 experts and widths of 60,000.
_MOST = (
    (_LAYERS, 10_000),
    (_EXPERTS, 100_000),
    (re.compile(r"\w*(hidden_size|intermediate_size|dim|heads|channels|n_embd)"), 1 << 20),
    (re.compile(r"\w*vocab_size"), 1 << 26),
    (re.compile(r"image_size"), 1 << 14),
    # transformers names each of them.
    (re.compile(r"num_labels"), 1 << 20),
)
# More layers, and more experts in all layers together, than these need as many tensors. Layers may share theirs.
_SHARED_LAYERS, _FUSED_EXPERTS = 1_000, 1 << 20


def refuse_numbers(settings: Mapping[str, Any], source: str) -> None:
    """Assert that a configuration has no number that is far beyond any model.

    Raises:
        WeightsError: there is one; the message names it.
        RecursionError: the settings are nested too deeply.
    """
    for key, number in _numbers(settings):
        most = next((most for pattern, most in _MOST if pattern.fullmatch(key)), None)
        if most is not None and number > most:
            raise WeightsError(
                f"the checkpoint {source} has {key} {number!r:.60} in config.json, and no model has more than {most:,}"
                ": copy config.json again from where the model was saved"
            )


def refuse_more_than_stored(settings: Mapping[str, Any], tensors: int, source: str) -> None:
    """Assert that a number of stored tensors is enough for the layers and experts of a configuration.

    Raises:
        WeightsError: there are too few.
    """
    (layers, name), (experts, other) = (
        max(((number, key) for key, number in _numbers(settings) if pattern.fullmatch(key)), default=(0, ""))
        for pattern in (_LAYERS, _EXPERTS)
    )
    if layers > max(_SHARED_LAYERS, tensors):
        stated = f"{name} {layers}"
    elif layers * experts > max(_FUSED_EXPERTS, tensors):
        stated = f"{name} {layers} and {other} {experts}"
    else:
        return
    raise WeightsError(
        f"the checkpoint {source} has {stated} in config.json, and its weights are {tensors:,} tensors, too few for "
        "that: check that config.json and weights belong together"
    )


def _numbers(content: Any) -> Iterator[tuple[str, int]]:
    """Yield the numbers of settings with their keys, at any depth; of a list their sum or the largest."""
    if isinstance(content, dict):
        for key, value in content.items():
            numbers = [int(number) for number in (value if isinstance(value, list) else [value]) if _is_number(number)]
            if numbers:
                yield key, max(sum(numbers) if _ADDED.fullmatch(key) else max(numbers), len(numbers))
            yield from _numbers(value)
    elif isinstance(content, list):
        for value in content:
            yield from _numbers(value)


def _is_number(value: Any) -> bool:
    return (isinstance(value, float) and isfinite(value)) or (isinstance(value, int) and not isinstance(value, bool))
