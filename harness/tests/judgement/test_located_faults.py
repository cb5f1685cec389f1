"""Faults that only show with images of several sizes or prompts of several lengths are located or named.

Both bundled models are compared with their stored baselines on `scenes-varied`. `pytest -m faults` runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from transformers.integrations import sdpa_attention

from harness.baselines.store import Baseline, read_baseline
from harness.judgement.side_by_side import reading_traces
from harness.measurement.measure import measure
from harness.models.registry import find_model
from harness.models.vlm import Vlm, load_vlm
from harness.probe.self_checks import SelfCheckError
from harness.profile.profile import Profile
from harness.report.against import trace_line
from harness.storage.cache_directory import default_cache
from harness.tests.support.case_runs import ROOT
from harness.tests.support.faults import Change, copy_vlm
from harness.tests.support.harmless import HARMLESS
from harness.tests.support.reproduction_checks import assert_reproduces, failure_messages
from harness.tests.support.varied_faults import INSTRUCTBLIP, LLAVA, LOCATED

pytestmark = pytest.mark.faults

DATASET = "scenes-varied"
FEW = 16  # batches of 4, 8 and 16 of these samples hold prompts of two or three lengths
# Tanh in place of GELU changes the InstructBLIP samples little, so more samples are needed.
SAMPLES = {LLAVA: FEW, INSTRUCTBLIP: 32}
VISIBLE = [(model, fault) for model in (LLAVA, INSTRUCTBLIP) for fault, row in LOCATED.items() if model in row.models]


@pytest.fixture(scope="module")
def vlms() -> dict[str, Vlm]:
    """The bundled models in float32, loaded once; not to be modified."""
    return {name: load_vlm(find_model(name), cache=default_cache(), device="cpu") for name in (LLAVA, INSTRUCTBLIP)}


@pytest.fixture(autouse=True)
def same_threads_afterwards() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


Measured = Callable[..., Profile]


@pytest.fixture
def changed(vlms: dict[str, Vlm], monkeypatch: pytest.MonkeyPatch) -> Measured:
    """Measure a copy of a model after a change."""

    def profile(model: str, change: Change, dataset: str = DATASET, **options: Any) -> Profile:
        copied = copy_vlm(vlms[model])
        with torch.no_grad():
            change(copied, monkeypatch)
        return measure(copied, dataset, **({"samples": FEW, "controls": (), "progress": False} | options))

    return profile


def stored(model: str, dataset: str = DATASET) -> Baseline:
    return read_baseline(ROOT / "baselines" / model / f"{dataset}.json")


@pytest.mark.parametrize(("model", "fault"), VISIBLE)
def test_a_fault_is_located_at_its_first_residual_point_and_its_setting_is_named(
    changed: Measured, model: str, fault: str
) -> None:
    row = LOCATED[fault]
    profile, baseline = changed(model, row.change, samples=SAMPLES[model]), stored(model)
    complaints = failure_messages(profile, baseline)
    assert complaints
    for message in complaints:
        assert all(name in message for name in row.named), message
        assert message.startswith("the inputs changed") == (row.point is None)
        assert (f"{SAMPLES[model]} other pixels" in message) == (row.point is None)
    traces = {trace.name: trace for trace in reading_traces(profile, baseline)}
    if row.point is None:
        assert not traces
    else:
        assert traces["similarity"].same_until == row.point - 1, trace_line(traces["similarity"])


@pytest.mark.parametrize("fault", ["padding mask ignored", "bilinear for bicubic", "height and width swapped"])
def test_square_images_and_prompts_of_equal_length_do_not_show_a_fault(changed: Measured, fault: str) -> None:
    """This is the reason for the separate dataset."""
    assert failure_messages(changed(LLAVA, LOCATED[fault].change, "scenes"), stored(LLAVA, "scenes")) == []


def test_key_value_heads_repeated_in_a_different_order_are_refused_at_the_first_layer(
    changed: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a padded batch, transformers repeats the key-value heads itself."""

    def tiled(states: torch.Tensor, times: int) -> torch.Tensor:
        return states.repeat(1, times, 1, 1)

    monkeypatch.setattr(sdpa_attention, "repeat_kv", tiled)
    with pytest.raises(SelfCheckError, match="layer 1"):
        changed(LLAVA, lambda *_: None)


@pytest.mark.parametrize("name", HARMLESS)
@pytest.mark.parametrize("model", [LLAVA, INSTRUCTBLIP])
def test_a_harmless_change_reproduces(changed: Measured, model: str, name: str) -> None:
    profile = changed(model, HARMLESS[name].change, **HARMLESS[name].options)
    assert_reproduces(profile, stored(model))
