"""Changed settings are listed in the order of their effect, with new fields of another release last."""

from __future__ import annotations

from typing import Any

import pytest

from harness.profile.configuration import CHECKPOINT
from harness.profile.configuration_changes import configuration_changes

BEFORE: dict[str, Any] = {
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
AFTER: dict[str, Any] = {
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


def test_settings_that_affect_the_computation_come_first_and_others_are_counted() -> None:
    changes = configuration_changes(AFTER, BEFORE)
    assert [line.partition(":")[0] for line in changes.lines()] == list(BEFORE)[:-1]
    assert changes.lines()[0] == "text_config.rope_theta: 10000 -> 10100"
    assert changes.abridged() == [*changes.lines()[:6], "4 more settings"]
    assert changes.abridged(20) == changes.lines()
    assert configuration_changes(AFTER, {**AFTER, CHECKPOINT: "0123"}).lines() == []


def test_new_fields_are_counted_between_releases_and_listed_within_a_release() -> None:
    after = {**BEFORE, "new_default": 0.5, "new_null": None, "vision_feature_layer": -1}
    del after["text_config.use_cache"]
    changes = configuration_changes(after, BEFORE, same_release=False)
    assert changes.abridged() == ["vision_feature_layer: -2 -> -1", "1 setting added, 1 setting removed"]
    assert changes.lines() == [
        "vision_feature_layer: -2 -> -1",
        "new_default: absent -> 0.5",
        "text_config.use_cache: true -> absent",
    ]
    assert configuration_changes(after, BEFORE).abridged() == changes.lines()
    assert configuration_changes(BEFORE, after, same_release=False).abridged()[1:] == [
        "1 setting added, 1 setting removed"
    ]


def test_a_class_name_added_by_saving_is_no_change_but_another_class_is() -> None:
    saved = {**BEFORE, "architectures": ["LlavaForConditionalGeneration"]}
    assert configuration_changes(saved, {**BEFORE, "architectures": None}).lines() == []
    assert configuration_changes(BEFORE, saved, same_release=False).lines() == []
    changes = configuration_changes({**saved, "architectures": ["OwnLlava"]}, saved).lines()
    assert changes == ["architectures: [LlavaForConditionalGeneration] -> [OwnLlava]"]


def test_many_modules_with_other_paths_are_counted_and_a_few_missing_ones_are_listed() -> None:
    plain = {f"modules.model.norm{index}.eps": 1e-06 for index in range(9)} | {"vision_feature_layer": -2}
    wrapped = {f"modules.base_model.model.norm{index}.eps": 1e-06 for index in range(9)} | {"vision_feature_layer": -1}
    changes = configuration_changes(wrapped, plain)
    assert changes.abridged() == ["vision_feature_layer: -2 -> -1", "9 settings added, 9 settings removed"]
    with_scale = {**plain, "modules.model.q_proj.scaling.default": 2.0}
    assert configuration_changes(with_scale, plain).lines() == ["model.q_proj.scaling.default: absent -> 2"]


@pytest.mark.parametrize(("after", "before"), [({}, BEFORE), (BEFORE, {}), ({}, {}), (BEFORE, BEFORE)])
def test_an_empty_configuration_is_not_compared(after: dict[str, Any], before: dict[str, Any]) -> None:
    assert configuration_changes(after, before).abridged() == []


@pytest.mark.parametrize(
    ("key", "before", "after", "line"),
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
def test_the_differing_entries_of_a_list_are_listed(key: str, before: Any, after: Any, line: str) -> None:
    assert configuration_changes({key: after}, {key: before}).lines() == [line]
    # A setting of only one configuration.
    assert configuration_changes({key: after}, {"other": 1}).lines()[0].startswith(line.partition(":")[0])
