"""Bounds on numbers in config.json, checked before a model is built, because building it might never finish."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

from harness.models.weights_error import WeightsError

# Keys that count layers, blocks or stages; keys of numbers per layer are excluded.
_LAYERS = re.compile(r"(?!\w*per_)((num|n)_\w*(layers?|blocks?|stages?)|\w*layers|depths?|\w*blocks)")
_EXPERTS = re.compile(r"(?!\w*per_)((num|n)_\w*experts|\w*experts)")
# Keys of lists whose numbers are summed; other lists hold positions.
_ADDED = re.compile(r"(num|n)_\w*|depths?|\w*blocks")
# Upper bounds. The largest published models have 126 layers, 16,384 experts and widths of 60,000.
_MOST = (
    (_LAYERS, 10_000),
    (_EXPERTS, 100_000),
    (re.compile(r"\w*(hidden_size|intermediate_size|dim|heads|channels|n_embd)"), 1 << 20),
    (re.compile(r"\w*vocab_size"), 1 << 26),
    (re.compile(r"image_size"), 1 << 14),
    # transformers creates a name for each label.
    (re.compile(r"num_labels"), 1 << 20),
)
# Above these numbers of layers, or of experts in all layers, each needs a tensor of its own. Below, they may share one.
_SHARED_LAYERS, _FUSED_EXPERTS = 1_000, 1 << 20


def refuse_numbers(settings: Mapping[str, Any], source: str) -> None:
    """Raise if a configuration has a number far beyond any model.

    Raises:
        WeightsError: there is such a number; the message names it.
        RecursionError: the settings are nested too deeply.
    """
    for key, number in _numbers(settings):
        most = next((most for pattern, most in _MOST if pattern.fullmatch(key)), None)
        if most is not None and number > most:
            raise WeightsError(
                f"the checkpoint {source} has {key} {number!r:.60} in config.json, but no model has more than {most:,}"
                ": copy config.json again from the original"
            )


def refuse_more_than_stored(settings: Mapping[str, Any], tensors: int, source: str) -> None:
    """Raise unless the number of stored tensors suffices for the layers and experts of a configuration.

    Raises:
        WeightsError: there are too few.
    """
    (layers, layers_key), (experts, experts_key) = (
        max(((number, key) for key, number in _numbers(settings) if pattern.fullmatch(key)), default=(0, ""))
        for pattern in (_LAYERS, _EXPERTS)
    )
    if layers > max(_SHARED_LAYERS, tensors):
        description = f"{layers_key} {layers}"
    elif layers * experts > max(_FUSED_EXPERTS, tensors):
        description = f"{layers_key} {layers} and {experts_key} {experts}"
    else:
        return
    raise WeightsError(
        f"the checkpoint {source} has {description} in config.json, but its {tensors:,} weight tensors are too few for "
        "that: check that config.json and weights belong together"
    )


def _numbers(content: Any) -> Iterator[tuple[str, int]]:
    """Yield the numbers of settings with their keys, at any depth; for a list its sum, maximum or length."""
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
