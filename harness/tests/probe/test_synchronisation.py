"""Nothing waits for a GPU from layer to layer: no number is looked at before the pass is over, and then few are.

Where there is no GPU this is seen by the operations that would make the CPU wait for one: those whose result is a
number of Python's, or has a shape that only the numbers tell.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from harness.data.sample import Sample
from harness.models.prompts.prompt import encode
from harness.models.vlm import Vlm
from harness.probe.lens_task import LensTask, References
from harness.probe.observation import observing
from harness.tests.support.tiny import tiny_vlm

aten = torch.ops.aten
WAITING = {aten._local_scalar_dense, aten.nonzero, aten.equal, aten.is_nonzero, aten.masked_select, aten.unique_dim}


class Waits(TorchDispatchMode):
    """Counts the operations that make the CPU wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        by_mask = func.overloadpacket is aten.index and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        self.count += func.overloadpacket in WAITING or by_mask
        return func(*args, **(kwargs or {}))


def waits(vlm: Vlm, samples: Sequence[Sample], *, observed: bool) -> tuple[int, int]:
    """How often a batch makes the CPU wait: in its forward pass, and when its readings are made."""
    batch = encode(vlm.processor, samples, vlm.anatomy.image_positions)
    words = (((5,), (7, 9)),) * len(samples)
    task = LensTask(References(words, words), tuple(range(20)))
    watching = observing(vlm.model, vlm.anatomy, batch.groups, sample_ids=[s.id for s in samples], lens=task)
    with torch.inference_mode(), watching if observed else contextlib.nullcontext() as seen:
        with Waits() as passing:
            vlm.model(**vlm.to_device(batch.inputs), use_cache=False, logits_to_keep=1)
        with Waits() as reading:
            if seen is not None:
                seen.readings()
    return passing.count, reading.count


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_an_observed_pass_waits_no_more_often_than_a_plain_one(samples: list[Sample], attention: str) -> None:
    counts = []
    for layers in (2, 6):
        vlm = tiny_vlm(layers=layers, attention=attention)
        # What stands between attention and projection is found at the first row of all.
        waits(vlm, samples, observed=True)
        plain, _ = waits(vlm, samples, observed=False)
        passing, reading = waits(vlm, samples, observed=True)
        assert passing == plain
        counts.append(reading)
    assert counts[0] == counts[1], "what is looked at in the end does not grow with the layers"


def test_a_wait_would_be_seen(vlm: Vlm, samples: list[Sample]) -> None:
    with Waits() as seen:
        float(torch.ones(3).sum())
        torch.ones(3)[torch.tensor([True, False, True])]
        torch.ones(3).nonzero()
    assert seen.count == 3
    assert waits(vlm, samples, observed=True)[1] > 0
