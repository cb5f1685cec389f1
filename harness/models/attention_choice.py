"""The attention implementation that a checkpoint's config.json asks for, exchanged where it cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

#: What the probe can read; None lets transformers choose between the two.
READABLE = (None, "sdpa", "eager")


def choose_readable_attention(config: Any) -> list[str]:
    """Let transformers choose between sdpa and eager in every part of a configuration that asks for another attention.

    Args:
        config: the model's configuration; changed in place.

    Returns:
        The implementations that were replaced, each once.
    """
    replaced: dict[str, None] = {}
    for part in _parts(config):
        wanted = getattr(part, "_attn_implementation", None)
        if wanted not in READABLE:
            replaced[str(wanted)] = None
            # A plain value would be handed on to the parts inside.
            part._attn_implementation = {"": None}
    return list(replaced)


def _parts(config: Any) -> Iterator[Any]:
    """Iterate over a configuration and those inside of it."""
    yield config
    for key in getattr(config, "sub_configs", {}):
        if (inner := getattr(config, key, None)) is not None:
            yield from _parts(inner)
