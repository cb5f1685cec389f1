"""Processes with different options report them in one sentence with both values and the ranks."""

from __future__ import annotations

from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.measurement.rank_settings import Setting, difference, measurement_settings
from harness.measurement.reading_keys import reading_cache_key
from harness.plugin.torchrun import option_settings, selection_settings
from harness.run.options import OPTIONS, Options, read_options
from harness.tests.support.tiny import tiny_samples, tiny_vlm

SAME = ": start all processes with the same"


def settings(**values: str) -> dict[str, Setting]:
    return {name: Setting(value) for name, value in values.items()}


def sentence(*values: str) -> str:
    return difference("started", [settings(size=value) for value in values])


def test_the_sentence_names_the_setting_the_processes_and_both_values() -> None:
    assert sentence("8", "8", "8") == ""
    assert sentence("8", "4") == f"process 1 started with size 4, process 0 with 8{SAME}"
    assert sentence("8", "4", "8", "4").startswith("processes 1 and 3 started with size 4, process 0 with 8")
    assert sentence("8", *["4"] * 7).startswith("processes 1, 2, 3 and 4 more started with size 4, ")
    assert difference("started", [{}, settings(size="4")]) == (
        f"process 1 started with size 4, process 0 with none{SAME}"
    )
    several = difference("began", [settings(a="1", b="1", c="1", d="1"), settings(a="2", b="2", c="2", d="2")])
    assert several.endswith(f"process 1 began with c 2, process 0 with 1; 1 more differ{SAME}")


@pytest.fixture
def started(pytester: pytest.Pytester) -> Any:
    pytester.makeconftest('pytest_plugins = ["harness.plugin.hooks"]')

    def settings_of(*arguments: str, tests: tuple[str, ...] = ("a", "b")) -> dict[str, Setting]:
        config = pytester.parseconfig(*arguments)
        items: Any = [SimpleNamespace(nodeid=test, fixturenames=("pair",)) for test in tests]
        return option_settings(read_options(config), "cpu") | selection_settings(config, items)

    return settings_of


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--phase-batch-size", "4"), "--phase-batch-size 4, process 0 with 8"),
        (("--phase-samples", "64"), "--phase-samples 64, process 0 with not given"),
        (("--phase-seed", "1"), "--phase-seed 1, process 0 with 0"),
        (("--phase-dtype", "bf16"), "--phase-dtype bf16, process 0 with auto"),
        (("--phase-model", "scenes-llava"), "--phase-model scenes-llava, process 0 with none"),
        (("--phase-dataset", "scenes"), "--phase-dataset scenes, process 0 with none"),
        (("--phase-controls", "blank"), "--phase-controls blank, process 0 with noise, blank"),
        (("--phase-update",), "--phase-update on, process 0 with off"),
        (("--phase-no-cache",), "--phase-no-cache on, process 0 with off"),
        (("--phase-strict-evidence",), "--phase-strict-evidence on, process 0 with off"),
        (("-x",), "--maxfail 1, process 0 with not given"),
    ],
)
def test_an_option_that_differs_is_named(started: Any, arguments: tuple[str, ...], named: str) -> None:
    problem = difference("started", [started(), started(*arguments)])
    assert problem.startswith(f"process 1 started with {named}")
    assert difference("started", [started(*arguments), started(*arguments)]) == ""


def test_an_ini_value_that_differs_is_named(started: Any, pytester: pytest.Pytester) -> None:
    before = started()
    pytester.makeini("[pytest]\nphase_batch_size = 3\n")
    assert "--phase-batch-size 3, process 0 with 8" in difference("started", [before, started()])
    assert difference("started", [before, started("--phase-batch-size", "8")]) == ""


def test_trusted_code_is_named_by_its_checkpoint(started: Any, pytester: pytest.Pytester) -> None:
    (directory := pytester.mkdir("own")).joinpath("config.json").write_text("{}")
    named = ("--phase-model", str(directory))
    problem = difference("started", [started(*named), started(*named, "--phase-trust-code", str(directory))])
    assert "--phase-trust-code own, process 0 with none" in problem


@pytest.mark.parametrize(
    "arguments",
    [
        ("--phase-json", "a.json"),
        ("--phase-markdown", "a.md"),
        ("--phase-report", "report"),
        ("--phase-cache", "cache"),
        ("--phase-baselines", "elsewhere"),
        ("--phase-device", "cuda:1"),
        ("--phase-data", "coco-captions=elsewhere"),
        ("--phase-process-timeout", "9"),
        ("-k", "a or b"),
        ("-q",),
        ("-s",),
    ],
)
def test_options_per_process_may_differ(started: Any, arguments: tuple[str, ...]) -> None:
    assert difference("started", [started(), started(*arguments)]) == ""


def test_every_option_is_compared_or_may_differ(started: Any) -> None:
    compared = {name.removeprefix("--phase-").replace("-", "_") for name in started()}
    may_differ = {name for name, option in OPTIONS.items() if option.per_process}
    named = {field.name.removesuffix("s") for field in fields(Options) if field.name not in may_differ}
    assert named <= {name.removesuffix("s") for name in compared}
    assert may_differ == {"device", "data", "baselines", "cache", "process_timeout", "json", "markdown", "report"}


def test_differing_tests_are_explained_by_the_options_that_selected_them(started: Any) -> None:
    both = started("-k", "b")
    assert difference("started", [both, started("-k", "c", tests=("a",))]) == (
        f"process 1 started with -k c, process 0 with b{SAME}"
    )
    assert difference("started", [both, started("-k", "b", tests=("a",))]) == (
        f"process 1 started with tests 1, process 0 with 2{SAME}"
    )
    assert difference("started", [both, started("-k", "b", tests=("b", "a"))]) == (
        f"process 1 started with tests 2: number 1 is b, process 0 with a{SAME}"
    )


def test_tests_without_meetings_may_differ() -> None:
    def item(name: str, *fixtures: str, timed: bool = False) -> Any:
        return SimpleNamespace(nodeid=name, fixturenames=fixtures, get_closest_marker=lambda _: timed or None)

    config: Any = SimpleNamespace(getoption=lambda _, default: default, args=[])
    doctest: Any = SimpleNamespace(nodeid="doctest", get_closest_marker=lambda _: None)
    curve, timed = item("curve", "profile", "phase", "pair"), item("timed", timed=True)
    first = selection_settings(config, [item("fig", "word"), curve, doctest, timed])
    assert difference("started", [first, selection_settings(config, [curve, item("kiwi", "word"), timed])]) == ""
    assert "tests 1, process 0 with 2" in difference("started", [first, selection_settings(config, [curve])])


def test_data_and_weights_that_differ_are_named() -> None:
    vlm, samples = tiny_vlm(), tiny_samples(4)
    key = reading_cache_key(vlm, "ab", {"layers": 2}, 8, samples[:2])
    requested = {"controls": ("blank",)}
    same = measurement_settings(key, samples, requested)
    assert difference("began", [same, measurement_settings(key, samples, requested)]) == ""
    hardware = {**key, "environment": {**key["environment"], "device_name": "another"}}
    assert difference("began", [same, measurement_settings(hardware, samples, requested)]) == ""
    other = measurement_settings({**key, "weights": "cd"}, samples, requested)
    assert difference("began", [same, other]) == f"process 1 began with weights cd, process 0 with ab{SAME}"
    narrow = reading_cache_key(tiny_vlm(dtype=torch.bfloat16), "ab", {"layers": 2}, 8, samples[:2])
    assert "dtype bfloat16, process 0 with float32" in difference(
        "began", [same, measurement_settings(narrow, samples, requested)]
    )
    renamed = [*samples[:3], replace(samples[3], captions=("another",))]
    assert "samples 4: number 4 is tiny-3 (" in difference(
        "began", [same, measurement_settings(key, renamed, requested)]
    )
