"""Observation of a tiny prompt: all readings of the harness, with every image token decoded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from harness.models.anatomy import Anatomy
from harness.probe.lens_task import LensTask, References
from harness.probe.observation import Observation, observing
from harness.releases.tiny.prompts import TinyPrompt

# Any words will do: the decoded entries are read, not the hits.
_WORDS = ((11, 12), (13,))
_BLOCK = tuple(range(64))


@contextlib.contextmanager
def observing_densely(
    model: Any, anatomy: Anatomy, prompt: TinyPrompt, *, checking: bool = False
) -> Iterator[Observation]:
    """Observe the one forward pass over the prompt inside the block, with the dense lens.

    Args:
        model: a tiny model.
        anatomy: its parts.
        prompt: the prompt of the pass.
        checking: True to compare the readings with the model's own outputs.
    """
    rows = prompt.groups.real.shape[0]
    words = (_WORDS,) * rows
    task = LensTask(References(words=words, chance_words=words), _BLOCK, dense=True)
    ids = tuple(f"row {row}" for row in range(rows))
    with observing(model, anatomy, prompt.groups, sample_ids=ids, lens=task, checking=checking) as observation:
        yield observation
