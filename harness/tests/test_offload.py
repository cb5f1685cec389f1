"""A model whose weights accelerate keeps in the CPU's memory or on disk is measured as one that lies in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import cpu_offload, disk_offload

from harness.data.registry import DATASETS
from harness.data.sample import Dataset
from harness.models.offloaded import OffloadError, brought_in
from harness.models.vlm import Vlm
from harness.profile import Profile
from harness.tests.tiny import same, tiny_profile, tiny_samples, tiny_vlm

CPU = torch.device("cpu")
CONTROLS = ("noise", "blank")


def to_cpu(model: Any, _: Path) -> None:
    cpu_offload(model, execution_device=CPU)


def to_disk(model: Any, folder: Path) -> None:
    disk_offload(model, str(folder), execution_device=CPU)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "tiny", Dataset("tiny", "tiny", lambda n, *_: tiny_samples(n)))


@pytest.fixture(scope="module")
def in_memory() -> Callable[[], Profile]:
    kept: list[Profile] = []

    def measured() -> Profile:
        if not kept:
            kept.append(tiny_profile(tiny_vlm(), controls=CONTROLS))
        return kept[0]

    return measured


def assert_same(one: Profile, other: Profile) -> None:
    """Bit for bit: curves, attention, lens, controls, and what was drawn in full."""
    assert same(one, other)
    for control, curves in one.controls.items():
        for name, curve in curves.items():
            np.testing.assert_array_equal(other.controls[control][name], curve)
    for drawn, again in zip(one.drawings, other.drawings, strict=True):
        np.testing.assert_array_equal(again.norm_rows, drawn.norm_rows)
        assert (again.image_tokens, again.last_token) == (drawn.image_tokens, drawn.last_token)


def nothing_stays(vlm: Vlm) -> bool:
    return all(parameter.is_meta for parameter in vlm.model.parameters())


@pytest.mark.parametrize("offload", [to_cpu, to_disk])
def test_an_offloaded_model_gives_the_profile_of_one_in_memory(
    offload: Callable[[Any, Path], None], tmp_path: Path, in_memory: Callable[[], Profile]
) -> None:
    vlm = tiny_vlm()
    offload(vlm.model, tmp_path)
    assert nothing_stays(vlm)
    assert_same(in_memory(), tiny_profile(vlm, controls=CONTROLS))
    assert nothing_stays(vlm)


def test_weights_are_there_inside_the_block_only() -> None:
    head = tiny_vlm().model.lm_head
    before = head.weight.clone()
    cpu_offload(head, execution_device=CPU)
    with brought_in(head), brought_in(head):
        assert torch.equal(head.weight, before)
    assert head.weight.is_meta
    with pytest.raises(ZeroDivisionError), brought_in(head):
        raise ZeroDivisionError
    assert head.weight.is_meta


def test_weights_that_nothing_holds_are_refused_in_one_sentence() -> None:
    vlm = tiny_vlm()
    vlm.model.lm_head.to("meta")
    with pytest.raises(OffloadError, match=r"Linear are on the meta device and accelerate has no copy .*device_map"):
        tiny_profile(vlm)
