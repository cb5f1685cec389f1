"""An observed pass never synchronises the GPU between layers, and `readings()` only a constant number of times.

The tests need no GPU: they count operations that would synchronise one, which return a Python number or a tensor whose
shape depends on values.
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
SYNCHRONISING = {
    aten._local_scalar_dense,
    aten.nonzero,
    aten.equal,
    aten.is_nonzero,
    aten.masked_select,
    aten.unique_dim,
}


class SynchronisationCounter(TorchDispatchMode):
    """Counter of operations that synchronise a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        by_mask = func.overloadpacket is aten.index and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        self.count += func.overloadpacket in SYNCHRONISING or by_mask
        return func(*args, **(kwargs or {}))


def count_synchronisations(vlm: Vlm, samples: Sequence[Sample], *, observed: bool) -> tuple[int, int]:
    """Return the number of synchronisations in the forward pass of a batch, and in its `readings()`."""
    batch = encode(vlm.processor, samples, vlm.anatomy.image_positions)
    words = (((5,), (7, 9)),) * len(samples)
    task = LensTask(References(words, words), tuple(range(20)))
    watching = observing(vlm.model, vlm.anatomy, batch.groups, sample_ids=[s.id for s in samples], lens=task)
    with torch.inference_mode(), watching if observed else contextlib.nullcontext() as observation:
        with SynchronisationCounter() as passing:
            vlm.model(**vlm.to_device(batch.inputs), use_cache=False, logits_to_keep=1)
        with SynchronisationCounter() as reading:
            if observation is not None:
                observation.readings()
    return passing.count, reading.count


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_an_observed_pass_synchronises_no_more_often_than_a_plain_pass(samples: list[Sample], attention: str) -> None:
    counts = []
    for layers in (2, 6):
        vlm = tiny_vlm(layers=layers, attention=attention)
        # The first pass classifies the connection between attention and output projection.
        count_synchronisations(vlm, samples, observed=True)
        plain, _ = count_synchronisations(vlm, samples, observed=False)
        passing, reading = count_synchronisations(vlm, samples, observed=True)
        assert passing == plain
        counts.append(reading)
    assert counts[0] == counts[1], "the number of synchronisations does not depend on the number of layers"


def test_synchronising_operations_are_counted(vlm: Vlm, samples: list[Sample]) -> None:
    with SynchronisationCounter() as counter:
        float(torch.ones(3).sum())
        torch.ones(3)[torch.tensor([True, False, True])]
        torch.ones(3).nonzero()
    assert counter.count == 3
    assert count_synchronisations(vlm, samples, observed=True)[1] > 0
