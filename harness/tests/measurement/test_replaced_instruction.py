"""A measurement with another instruction than the dataset's: its prompts, its declaration and its cached readings."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.data.datasets import DATASETS
from harness.measurement.measure import measure
from harness.models.vlm import Vlm
from harness.profile.profile import ONE_PER_SAMPLE, Profile
from harness.tests.support.rephrased import ORIGINAL, SAME, SECOND
from harness.tests.support.tiny import have_same_numbers, try_separators


@pytest.fixture(autouse=True)
def same_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, SAME.name, SAME)


@pytest.mark.usefixtures("tiny_data")
def test_an_instruction_replaces_those_of_all_samples(vlm: Vlm) -> None:
    def profile(dataset: str, instruction: str | None = None) -> Profile:
        return measure(vlm, dataset, samples=4, controls=(), drawings=False, instruction=instruction)

    own, replaced = profile("tiny"), profile("tiny", ORIGINAL)
    assert own.declared["instruction"] == ONE_PER_SAMPLE
    assert replaced.declared["instruction"] == ORIGINAL
    assert have_same_numbers(replaced, profile(SAME.name))
    rephrased = profile(SAME.name, SECOND)
    assert rephrased.pixel_hashes == replaced.pixel_hashes
    assert not set(rephrased.token_hashes) & set(replaced.token_hashes)


def test_readings_of_both_instructions_stay_in_one_cache(fresh_vlm: Vlm, tmp_path: Path) -> None:
    try_separators(fresh_vlm)
    passes: list[int] = []
    fresh_vlm.anatomy.layers[0].register_forward_pre_hook(lambda _, args: passes.append(len(args[0])))
    lines: list[str] = []

    def profile(instruction: str | None) -> Profile:
        passes.clear()
        return measure(
            fresh_vlm, SAME.name, samples=6, batch_size=2, controls=(), drawings=False, instruction=instruction,
            cache=tmp_path, say=lines.append,
        )  # fmt: skip

    measured = {instruction: (profile(instruction), len(passes)) for instruction in (None, SECOND)}
    for instruction, (first, count) in measured.items():
        cached = profile(instruction)
        assert have_same_numbers(cached, first)
        assert len(passes) == count - 3
    assert lines == []
