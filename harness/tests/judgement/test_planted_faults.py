"""Planted faults are found and named, and harmless changes reproduce.

Each change is measured on the bundled pairs and compared with their stored baselines, by the checks that the cases use.
Plain `pytest` skips these tests because they take minutes; `pytest -m faults` runs them.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

import harness.measurement.drawn_samples
from harness.analysis.mean_difference import Verdict
from harness.baselines.store import Baseline, read_baseline
from harness.checks import check_boundaries, check_equivalent, check_intervals
from harness.data.datasets import find_dataset
from harness.data.sample import Source
from harness.judgement.regression import compare, compare_boundaries, compare_intervals
from harness.measurement.measure import measure
from harness.models.anatomy import find_anatomy
from harness.models.prompts.prompt import encode
from harness.models.registry import find_model
from harness.models.vlm import Vlm, load_vlm
from harness.probe.self_checks import SelfCheckError
from harness.profile.profile import Profile
from harness.storage.cache_directory import default_cache
from harness.tests.support.case_runs import ROOT
from harness.tests.support.faults import GROSS, SUBTLE, Change, copy_vlm, quantise, shift_image_span
from harness.tests.support.harmless import EXTRA_PADDING, HARMLESS, change_nothing, pad_left, shuffle_samples
from harness.tests.support.reproduction_checks import (
    MEASURED,
    MODEL,
    all_verdicts,
    assert_reproduces,
    failure_message,
    failure_messages,
)

pytestmark = pytest.mark.faults

PAIRED = 32  # the fewest samples that are compared in pairs
DIFFERING = 64
CHANGED_INPUTS = "pictures of other samples"


@pytest.fixture(scope="module")
def llava() -> Vlm:
    """The bundled model in float32, loaded once; not to be modified."""
    return load_vlm(find_model(MODEL), cache=default_cache(), device="cpu")


@pytest.fixture(scope="module", params=["scenes", "scenes-order"])
def stored(request: pytest.FixtureRequest) -> Baseline:
    """The stored baseline of the bundled model on one dataset."""
    return read_baseline(ROOT / "baselines" / MODEL / f"{request.param}.json")


@pytest.fixture(autouse=True)
def same_threads_afterwards() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


Measured = Callable[..., Profile]


@pytest.fixture
def changed(stored: Baseline, monkeypatch: pytest.MonkeyPatch) -> Measured:
    """Measure the pair of the baseline on a copy of a model, after a change."""

    def profile(vlm: Vlm, change: Change, **options: Any) -> Profile:
        copied = copy_vlm(vlm)
        with torch.no_grad():
            change(copied, monkeypatch)
        options = {"samples": PAIRED, "controls": (), "word_order": False, "progress": False} | options
        return measure(copied, stored.profile.dataset, **options)

    return profile


def different(profile: Profile, stored: Baseline) -> list[str]:
    """Return the messages on measures, boundaries and phases that differ by more than their margin."""
    checks = [
        lambda family=family: check_equivalent(profile, stored, compare(profile, stored, family)) for family in MEASURED
    ]
    checks.append(lambda: check_boundaries(profile, stored, compare_boundaries(profile, stored)))
    checks.append(lambda: check_intervals(profile, stored, compare_intervals(profile, stored)))
    return [message for message in map(failure_message, checks) if message]


def assert_named(message: str) -> None:
    """Assert that a message names the changed measure, the pair and the position."""
    titles = [measure.title for family in MEASURED for measure in family.measures]
    titles += ["phase boundaries", "phases"]
    assert any(f"{title} of {MODEL} on scenes" in message for title in titles), message
    assert re.search(r"(residual points?|layers?) \d", message), message
    assert "margin" in message or "prominence" in message, message


@pytest.mark.parametrize("fault", SUBTLE)
def test_a_fault_does_not_reproduce_and_is_named(llava: Vlm, stored: Baseline, changed: Measured, fault: str) -> None:
    complaints = failure_messages(changed(llava, SUBTLE[fault]), stored)
    assert complaints
    for message in complaints:
        assert_named(message)
        assert message.startswith("the inputs changed") == (fault == CHANGED_INPUTS)


def test_a_shifted_image_span_is_refused_by_the_models_own_mask(llava: Vlm, changed: Measured) -> None:
    with pytest.raises(SelfCheckError, match="image positions, and they are not the same"):
        changed(llava, shift_image_span)


@pytest.mark.parametrize("fault", GROSS)
def test_a_gross_fault_neither_reproduces_nor_is_equivalent(
    llava: Vlm, stored: Baseline, changed: Measured, fault: str
) -> None:
    profile = changed(llava, GROSS[fault], samples=DIFFERING)
    complaints = failure_messages(profile, stored), different(profile, stored)
    for messages in complaints:
        assert messages
        for message in messages:
            assert_named(message)


@pytest.mark.parametrize("name", HARMLESS)
def test_a_harmless_change_reproduces(llava: Vlm, stored: Baseline, changed: Measured, name: str) -> None:
    profile = changed(llava, HARMLESS[name].change, **HARMLESS[name].options)
    assert_reproduces(profile, stored)


def test_the_harmless_changes_change_the_inputs(llava: Vlm, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = find_dataset("scenes").draw(8, 0, Source())
    shuffle_samples(llava, monkeypatch)
    again = find_dataset("scenes").draw(8, 0, Source())
    assert [sample.id for sample in again] != [sample.id for sample in drawn]
    assert {sample.id for sample in again} == {sample.id for sample in drawn}
    pad_left(llava, monkeypatch)
    plain = encode(llava.processor, drawn, llava.anatomy.image_positions)
    padded = harness.measurement.drawn_samples.encode(llava.processor, drawn, llava.anatomy.image_positions)
    assert plain.groups.real.all()
    assert padded.groups.real.sum() == plain.groups.real.sum()
    assert not padded.groups.real[:, :EXTRA_PADDING].any()


def test_a_model_saved_and_loaded_again_reproduces(
    llava: Vlm, stored: Baseline, changed: Measured, tmp_path: Path
) -> None:
    try:
        llava.model.save_pretrained(tmp_path)
        llava.processor.save_pretrained(tmp_path)
        model = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float32).eval()
        again = Vlm(MODEL, model, AutoProcessor.from_pretrained(tmp_path), find_anatomy(model))
        profile = changed(again, change_nothing)
    finally:
        shutil.rmtree(tmp_path)
    assert_reproduces(profile, stored)


def test_another_seed_of_the_noise_control_reproduces(llava: Vlm, stored: Baseline, changed: Measured) -> None:
    profile = changed(llava, change_nothing, controls=("noise",), control_seed=1)
    baseline_profile = stored.profile.select(profile.sample_ids)
    assert np.abs(profile.controls["noise"]["inter"] - baseline_profile.controls["noise"]["inter"]).max() > 1e-3
    assert_reproduces(profile, stored)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_lower_precision_does_not_differ(llava: Vlm, stored: Baseline, changed: Measured, dtype: str) -> None:
    """The weights are in 8 bits, or all numbers are in bfloat16."""
    if dtype == "float32":
        profile = changed(llava, quantise(8), samples=None)
    else:
        vlm = load_vlm(find_model(MODEL), cache=default_cache(), device="cpu", dtype=dtype)
        profile = changed(vlm, change_nothing, samples=None)
    verdicts = all_verdicts(profile, stored)
    assert set(verdicts.values()) <= {Verdict.REPRODUCES, Verdict.EQUIVALENT}, verdicts
