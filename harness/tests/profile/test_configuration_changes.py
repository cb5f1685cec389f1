"""Changed settings are told in the order of their weight: numbers first, new fields of another release last."""

from __future__ import annotations

from typing import Any

import pytest

from harness.profile.configuration import CHECKPOINT
from harness.profile.configuration_changes import configuration_changes

THEN: dict[str, Any] = {
    "text_config.rope_theta": 10000.0,
    "text_config.rms_norm_eps": 1e-06,
    "text_config.hidden_act": "silu",
    "vision_feature_layer": -2,
    "processor.image_processor.resample": 3,
    "text_config.attention_scale": 0.125,
    "text_config.num_hidden_layers": 4,
    "text_config.unheard_of": 1,
    "text_config.use_cache": True,
    "torchvision": "0.24.0",
    "modules.norm.eps": 1e-06,
}
NOW: dict[str, Any] = {
    "text_config.rope_theta": 10100.0,
    "text_config.rms_norm_eps": 1e-05,
    "text_config.hidden_act": "gelu",
    "vision_feature_layer": -1,
    "processor.image_processor.resample": 2,
    "text_config.attention_scale": 0.25,
    "text_config.num_hidden_layers": 6,
    "text_config.unheard_of": 2,
    "text_config.use_cache": False,
    "torchvision": "not installed",
    "modules.norm.eps": 1e-05,
}


def test_what_changes_numbers_stands_first_and_the_rest_is_counted() -> None:
    changes = configuration_changes(NOW, THEN)
    assert [line.partition(":")[0] for line in changes.lines()] == list(THEN)[:-1]
    assert changes.lines()[0] == "text_config.rope_theta: 10000 -> 10100"
    assert changes.abridged() == [*changes.lines()[:6], "4 more settings"]
    assert changes.abridged(20) == changes.lines()
    assert configuration_changes(NOW, {**NOW, CHECKPOINT: "0123"}).lines() == []


def test_new_fields_of_another_release_are_counted_and_of_the_same_release_are_changes() -> None:
    now = {**THEN, "new_default": 0.5, "new_null": None, "vision_feature_layer": -1}
    del now["text_config.use_cache"]
    apart = configuration_changes(now, THEN, same_release=False)
    assert apart.abridged() == ["vision_feature_layer: -2 -> -1", "1 setting new, 1 setting gone"]
    assert apart.lines() == [
        "vision_feature_layer: -2 -> -1",
        "new_default: absent -> 0.5",
        "text_config.use_cache: true -> absent",
    ]
    assert configuration_changes(now, THEN).abridged() == apart.lines()
    assert configuration_changes(THEN, now, same_release=False).abridged()[1:] == ["1 setting new, 1 setting gone"]


def test_the_class_that_saving_writes_is_no_change_and_another_class_is() -> None:
    saved = {**THEN, "architectures": ["LlavaForConditionalGeneration"]}
    assert configuration_changes(saved, {**THEN, "architectures": None}).lines() == []
    assert configuration_changes(THEN, saved, same_release=False).lines() == []
    own = configuration_changes({**saved, "architectures": ["OwnLlava"]}, saved).lines()
    assert own == ["architectures: [LlavaForConditionalGeneration] -> [OwnLlava]"]


def test_modules_under_other_paths_are_counted_and_a_few_that_one_side_lacks_are_named() -> None:
    plain = {f"modules.model.norm{index}.eps": 1e-06 for index in range(9)} | {"vision_feature_layer": -2}
    wrapped = {f"modules.base_model.model.norm{index}.eps": 1e-06 for index in range(9)} | {"vision_feature_layer": -1}
    changes = configuration_changes(wrapped, plain)
    assert changes.abridged() == ["vision_feature_layer: -2 -> -1", "9 settings new, 9 settings gone"]
    with_scale = {**plain, "modules.model.q_proj.scaling.default": 2.0}
    assert configuration_changes(with_scale, plain).lines() == ["model.q_proj.scaling.default: absent -> 2"]


@pytest.mark.parametrize(("now", "then"), [({}, THEN), (THEN, {}), ({}, {}), (THEN, THEN)])
def test_a_configuration_that_was_not_stored_is_not_compared(now: dict[str, Any], then: dict[str, Any]) -> None:
    assert configuration_changes(now, then).abridged() == []


@pytest.mark.parametrize(
    ("key", "then", "now", "line"),
    [
        ("modules.layers.*.scaling", 0.5, [0.5, 1.0, 1.0], "layers.*.scaling: 0.5 -> 1 in layers 2-3"),
        ("modules.layers.*.scaling", [0.5, 1.0, 1.0], 0.5, "layers.*.scaling: 1 -> 0.5 in layers 2-3"),
        # Only every other layer has such a module.
        ("modules.layers.*.scaling", 0.5, [None, 0.5, None, 1.0], "layers.*.scaling: 0.5 -> 1 in layer 4"),
        ("modules.layers.*.scaling", [1.0, 2.0], [2.0, 4.0], "layers.*.scaling: [1, 2] -> [2, 4]"),
        ("mean", [0.5, 0.4, 0.5], [0.5, 0.5, 0.5], "mean: 0.4 -> 0.5 in entry 2"),
        ("mean", [0.5, 0.5], [0.5, 0.5, 0.5], "mean: [0.5, 0.5] -> [0.5, 0.5, 0.5]"),
        ("mean", None, [0.5, 0.5], "mean: null -> [0.5, 0.5]"),
        ("grid", [[1, 2], [2, 1]], [[1, 2], [2, 2]], "grid: [2, 1] -> [2, 2] in entry 2"),
        ("name", "a" * 99, 1e20, f"name: {'a' * 57}... -> 1e+20"),
    ],
)
def test_of_a_list_the_entries_that_differ_are_named(key: str, then: Any, now: Any, line: str) -> None:
    assert configuration_changes({key: now}, {key: then}).lines() == [line]
    # Beside a list only one of them has.
    assert configuration_changes({key: now}, {"other": 1}).lines()[0].startswith(line.partition(":")[0])
