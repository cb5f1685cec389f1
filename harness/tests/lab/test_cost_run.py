"""Full measurements of a pair, timed with an empty and a full cache, and the plain passes of the same samples."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from harness.data.sample import Sample
from harness.lab.cost.cost_run import _timed_calls, time_measurement
from harness.lab.cost.subject import plain_seconds
from harness.measurement.measure import measure
from harness.models.linear import is_plain
from harness.models.prompts.prompt import Batch, UnevenPromptsError, encode
from harness.models.vlm import Vlm
from harness.profile.profile import Profile
from harness.tests.support.tiny import tiny_samples


def test_plain_passes_divide_prompts_that_cannot_share_a_batch(
    tiny_data: None, vlm: Vlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def strict(processor: object, samples: Sequence[Sample], *rest: object) -> Batch:
        if len({sample.instruction for sample in samples}) > 1:
            raise UnevenPromptsError("prompts of different length")
        return encode(processor, samples, *rest)

    monkeypatch.setattr("harness.lab.cost.subject.encode", strict)
    rows: list[int] = []
    handle = vlm.model.register_forward_pre_hook(lambda *call: rows.append(len(call[2]["input_ids"])), with_kwargs=True)
    assert plain_seconds(vlm, "tiny", 4, 4) > 0.0
    handle.remove()
    assert sum(rows) == 4
    assert len(rows) == len({sample.instruction for sample in tiny_samples(4)}) > 1


def test_a_call_inside_a_timed_call_is_part_of_it() -> None:
    inner = torch.nn.Linear(2, 2)
    outer = torch.nn.Sequential(inner, inner)
    with _timed_calls([outer, inner]) as seconds:
        assert is_plain(inner)
        outer(torch.zeros(1, 2))
        inner(torch.zeros(1, 2))
    outer(torch.zeros(1, 2))
    assert len(seconds) == 2
    assert min(seconds) > 0.0


def test_full_measurements_are_timed_with_an_empty_and_a_full_cache(
    tiny_data: None, vlm: Vlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decoder and its unembedding are timed too, because captions continue a cached prompt without the model."""
    timed: list[torch.nn.Module] = []
    passes: list[int] = []
    calls: list[tuple[int, int]] = []

    def recorded(*arguments: object, **options: object) -> Profile:
        before = len(passes)
        profile = measure(*arguments, **options)
        calls.append((before, len(passes) - before))
        return profile

    monkeypatch.setattr("harness.lab.cost.cost_run.measure", recorded)
    monkeypatch.setattr(
        "harness.lab.cost.cost_run._timed_calls", lambda modules: timed.extend(modules) or _timed_calls(modules)
    )
    handle = vlm.model.register_forward_hook(lambda *_: passes.append(1))
    times = time_measurement(vlm, "tiny", samples=4, batch_size=2, controls=(), progress=False)
    handle.remove()
    (plain, first), (_, warm) = calls
    assert (plain, len(passes)) == (2, 2 + first + warm + 2)
    assert warm < first
    assert (times.label, times.samples) == ("tiny-llava-tiny", 4)
    assert 0.0 < times.forward < times.first
    assert times.share == pytest.approx(1 - times.forward / times.first)
    assert min(times.warm, times.plain) > 0.0
    assert timed == [vlm.model, vlm.model.model.language_model, vlm.model.lm_head]
    assert not vlm.model._forward_hooks
    assert not vlm.model._forward_pre_hooks
