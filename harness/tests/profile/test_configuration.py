"""The recorded configuration includes settings from files, from the processor and from changes in memory."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from harness.baselines.store import read_baseline, write_baseline
from harness.judgement.phases import phases_of
from harness.models.vlm import Vlm
from harness.profile.configuration import CHECKPOINT, read_configuration
from harness.profile.environment import environment, weight_hashes
from harness.profile.profile import Profile
from harness.tests.support.changed_settings import MODULE_CHANGES, SETTING_CHANGES, rebuild
from harness.tests.support.synthetic_profiles import synthetic_profile
from harness.tests.support.tiny import N, tiny_profile


def profile_of(vlm: Vlm) -> Profile:
    """Return a synthetic profile with the provenance of a model."""
    weights, checkpoint = weight_hashes(vlm.model)
    return dataclasses.replace(
        synthetic_profile(),
        environment=environment(vlm.device, vlm.dtype, vlm.attention),
        weights=weights,
        configuration=read_configuration(vlm, checkpoint),
    )


@pytest.mark.parametrize("message", SETTING_CHANGES)
def test_a_changed_setting_is_listed_first(vlm: Vlm, message: str) -> None:
    changes = profile_of(rebuild(vlm, SETTING_CHANGES[message])).main_changes(profile_of(vlm))
    assert changes[0] == message
    assert changes[-1] in ("weights unchanged", "weights: only computed buffers differ")
    assert (changes[-1] == "weights unchanged") == ("rope_theta" not in message)
    # An attribute of a module that repeats a field of the configuration is not listed again.
    assert sum("eps" in change for change in changes) == ("eps" in message)


@pytest.mark.parametrize("message", MODULE_CHANGES)
def test_a_change_in_memory_is_listed_with_module_and_layers(fresh_vlm: Vlm, message: str) -> None:
    before = profile_of(fresh_vlm)
    with torch.no_grad():
        MODULE_CHANGES[message](fresh_vlm)
    buffers = "inv_freq" in message
    weights = "weights: only computed buffers differ" if buffers else "weights unchanged"
    assert profile_of(fresh_vlm).main_changes(before) == [message, weights]


def test_a_changed_weight_is_not_reported_as_a_computed_buffer(fresh_vlm: Vlm) -> None:
    before = profile_of(fresh_vlm)
    with torch.no_grad():
        fresh_vlm.anatomy.layers[0].mlp.up_proj.weight[0, 0] += 1
    after = profile_of(fresh_vlm)
    assert after.main_changes(before) == after.changes(before) == [f"weights: {before.weights} -> {after.weights}"]


def test_the_same_model_has_the_same_configuration(vlm: Vlm) -> None:
    first = profile_of(vlm)
    assert profile_of(rebuild(vlm)).configuration == first.configuration
    assert profile_of(rebuild(vlm)).main_changes(first) == []
    assert first.configuration[CHECKPOINT] == weight_hashes(vlm.model)[1] != first.weights


def test_paths_names_and_versions_are_no_settings(fresh_vlm: Vlm, tmp_path: Path) -> None:
    before = read_configuration(fresh_vlm)
    config = fresh_vlm.model.config
    config._name_or_path = config.text_config._name_or_path = str(tmp_path)
    config.transformers_version, config._commit_hash = "4.0", "0123456789"
    config.tokenizer_file = str(tmp_path / "tokenizer.json")
    assert read_configuration(fresh_vlm) == before


def test_values_are_json_types_without_addresses_of_objects(fresh_vlm: Vlm) -> None:
    fresh_vlm.model.config.odd = {"limit": (0.0, float("inf")), "type": torch.bfloat16, "object": object(), 3: {1.0}}
    settings = read_configuration(fresh_vlm)
    assert [settings[f"odd.{name}"] for name in ("limit", "type", "object", "3")] == [
        [0.0, "inf"],
        "bfloat16",
        "object",
        [1.0],
    ]
    assert json.loads(json.dumps(settings, allow_nan=False)) == settings
    assert list(settings) == sorted(settings)


def test_a_model_with_a_custom_processor_has_a_configuration(vlm: Vlm) -> None:
    class CustomProcessor:
        tokenizer = object()

        def __call__(self) -> None:
            raise NotImplementedError

    settings = read_configuration(dataclasses.replace(vlm, processor=CustomProcessor()))
    assert [key for key in settings if key.startswith("processor.")] == ["processor.class"]


def test_a_baseline_stores_the_configuration(vlm: Vlm, tmp_path: Path) -> None:
    written = profile_of(vlm)
    stored = read_baseline(write_baseline(tmp_path, written, {}, phases_of(written)))
    assert stored.profile.configuration == written.configuration
    assert written.changes(stored.profile) == []


@pytest.mark.usefixtures("tiny_data")
def test_cached_readings_of_another_configuration_are_not_used(fresh_vlm: Vlm, tmp_path: Path) -> None:
    """The cache key includes the configuration, so no control pass is needed to distinguish the two models."""
    passes: list[int] = []
    fresh_vlm.anatomy.layers[0].register_forward_pre_hook(lambda _, args: passes.append(len(args[0])))
    before = tiny_profile(fresh_vlm, cache=tmp_path)
    for layer in fresh_vlm.anatomy.layers:
        layer.input_layernorm.variance_epsilon *= 1.001
    passes.clear()
    remarks: list[str] = []
    changed = tiny_profile(fresh_vlm, cache=tmp_path, say=remarks.append)
    assert sum(passes) >= N
    assert (changed.weights, remarks) == (before.weights, [])
    assert changed.configuration != before.configuration
