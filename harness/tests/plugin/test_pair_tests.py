"""A model is timed once: with its first selected pair that is available."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.data.datasets import DATASETS
from harness.models.registry import MODELS
from harness.tests.support.case_runs import Cases

TIMES = ("test_plain", "test_similarity_and_attention", "test_hooked", "test_ratio")


@pytest.fixture
def several_pairs(monkeypatch: pytest.MonkeyPatch, cases: Cases) -> Cases:
    """Cases with two models on four datasets; the first is for regression only, the second cannot be read here."""
    tiny = DATASETS["tiny"]
    monkeypatch.setitem(DATASETS, "varied", replace(tiny, name="varied", regression_only=True))
    monkeypatch.setitem(DATASETS, "absent", replace(tiny, name="absent", unavailable=lambda _: "it is elsewhere"))
    monkeypatch.setitem(DATASETS, "later", replace(tiny, name="later"))
    for name in ("tiny-llava", "tiny-other"):
        datasets = ("varied", "absent", "tiny", "later")
        monkeypatch.setitem(MODELS, name, replace(MODELS["tiny-llava"], name=name, datasets=datasets))
    return cases


def collected(cases: Cases, *arguments: str) -> list[str]:
    """Return the names of the timing cases that a run would execute, with their pairs."""
    result = cases.run("--co", "-q", *arguments, "-k", "tiny-llava or tiny-other", pair=())
    lines = [line.rpartition("::")[2] for line in result.stdout.lines if "test_timing.py::" in line]
    return [line.replace("]", "").replace("[", " ") for line in lines]


def test_each_model_is_timed_with_its_first_available_pair(several_pairs: Cases) -> None:
    pairs = ("tiny-llava-tiny", "tiny-other-tiny")
    assert sorted(collected(several_pairs)) == sorted(f"{name} {pair}" for name in TIMES for pair in pairs)
    assert sorted(collected(several_pairs, "-m", "timing")) == sorted(collected(several_pairs))


def test_a_selected_pair_is_timed_although_another_comes_first(several_pairs: Cases) -> None:
    result = several_pairs.run("--co", "-q", "-m", "timing", "-k", "tiny-llava-later", pair=())
    assert sum("[tiny-llava-later]" in line for line in result.stdout.lines) == len(TIMES)


def test_an_unavailable_pair_remains_if_the_model_has_no_other(several_pairs: Cases) -> None:
    """Its tests are skipped with the reason."""
    result = several_pairs.run("--co", "-q", "-m", "timing", "-k", "tiny-llava-absent", pair=())
    assert sum("[tiny-llava-absent]" in line for line in result.stdout.lines) == len(TIMES)
