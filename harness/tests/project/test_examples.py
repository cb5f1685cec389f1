"""The examples in the docstrings of the public names run and print what they claim."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

import pytest

import harness
from harness import checks

ROOT = Path(__file__).parents[3]
NAMES = ["measure", "Profile", "Vlm", "find_anatomy", "phases_of", "compare_models"]
CHECKS = [name for name in vars(checks) if name.startswith("check_")]


def example_of(target: Any, name: str) -> doctest.DocTest:
    (test,) = doctest.DocTestFinder(exclude_empty=False, recurse=False).find(target, name, globs={})
    return test


@pytest.mark.parametrize("target", [getattr(harness, name) for name in NAMES], ids=NAMES)
def test_the_example_of_a_public_name_runs(target: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    test = example_of(target, target.__name__)
    assert test.examples
    assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test).failed == 0


@pytest.mark.parametrize("name", CHECKS)
def test_the_example_of_a_check_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    test = example_of(getattr(checks, name), name)
    assert test.examples
    assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test).failed == 0


@pytest.mark.parametrize("name", ["phases_of", "compare_models", "Profile"])
def test_examples_that_need_no_model_are_not_skipped(name: str) -> None:
    examples = example_of(getattr(harness, name), name).examples
    assert not any(example.options.get(doctest.SKIP) for example in examples)
