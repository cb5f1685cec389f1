"""Known causes of changes between releases of transformers, with their sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version


@dataclass(frozen=True, slots=True)
class UpstreamCause:
    """The cause of a change of a type in a release of transformers, and its source there."""

    model_type: str
    release: str
    text: str


KNOWN_CAUSES: Sequence[UpstreamCause] = (
    UpstreamCause("qwen2_5_vl", "5.3.0", "temporal positions of still images are scaled (transformers issue 45325)"),
    UpstreamCause("qwen2_5_vl", "5.5.4", "they are no longer scaled (transformers change 45330)"),
    UpstreamCause(
        "paligemma",
        "5.9.0",
        "a prompt without token types is causal, and separate tokens of type 0 see each other (modeling_paligemma.py)",
    ),
    UpstreamCause(
        "gemma3", "5.13.0", "image tokens see no further than the sliding window (transformers change 46850)"
    ),
)


def causes_of(model_type: str, old: str, new: str) -> list[str]:
    """Return the known causes of changes of a type between two releases; none for a checkout or an older release."""
    try:
        first, last = sorted(map(Version, (old, new)))
    except InvalidVersion:
        return []
    return [
        f"{cause.release}: {cause.text}"
        for cause in KNOWN_CAUSES
        if cause.model_type == model_type and first < Version(cause.release) <= last
    ]
