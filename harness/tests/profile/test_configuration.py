"""What a model computes with is recorded, whether a file, a processor or somebody's hand in memory decided it."""

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


def recorded(vlm: Vlm) -> Profile:
    """Return a profile of no numbers with the provenance of a model."""
    weights, checkpoint = weight_hashes(vlm.model)
    return dataclasses.replace(
        synthetic_profile(),
        environment=environment(vlm.device, vlm.dtype, vlm.attention),
        weights=weights,
        configuration=read_configuration(vlm, checkpoint),
    )


@pytest.mark.parametrize("message", SETTING_CHANGES)
def test_a_changed_setting_is_named_first(vlm: Vlm, message: str) -> None:
    changes = recorded(rebuild(vlm, SETTING_CHANGES[message])).main_changes(recorded(vlm))
    assert changes[0] == message
    assert changes[-1] in ("weights the same", "weights: the same but for computed buffers")
    assert (changes[-1] == "weights the same") == ("rope_theta" not in message)
    # What modules hold repeats no number of the configuration: it stands there once.
    assert sum("eps" in change for change in changes) == ("eps" in message)


@pytest.mark.parametrize("message", MODULE_CHANGES)
def test_a_change_in_memory_is_named_by_module_and_layers(own_vlm: Vlm, message: str) -> None:
    before = recorded(own_vlm)
    with torch.no_grad():
        MODULE_CHANGES[message](own_vlm)
    buffers = "inv_freq" in message
    same = "weights: the same but for computed buffers" if buffers else "weights the same"
    assert recorded(own_vlm).main_changes(before) == [message, same]


def test_a_changed_weight_is_no_computed_buffer(own_vlm: Vlm) -> None:
    before = recorded(own_vlm)
    with torch.no_grad():
        own_vlm.anatomy.layers[0].mlp.up_proj.weight[0, 0] += 1
    now = recorded(own_vlm)
    assert now.main_changes(before) == now.changes(before) == [f"weights: {before.weights} -> {now.weights}"]


def test_the_same_model_has_the_same_configuration(vlm: Vlm) -> None:
    first = recorded(vlm)
    assert recorded(rebuild(vlm)).configuration == first.configuration
    assert recorded(rebuild(vlm)).main_changes(first) == []
    assert first.configuration[CHECKPOINT] == weight_hashes(vlm.model)[1] != first.weights


def test_no_place_name_or_version_is_a_setting(own_vlm: Vlm, tmp_path: Path) -> None:
    before = read_configuration(own_vlm)
    config = own_vlm.model.config
    config._name_or_path = config.text_config._name_or_path = str(tmp_path)
    config.transformers_version, config._commit_hash = "4.0", "0123456789"
    config.tokenizer_file = str(tmp_path / "tokenizer.json")
    assert read_configuration(own_vlm) == before


def test_values_are_json_and_no_address_of_an_object(own_vlm: Vlm) -> None:
    own_vlm.model.config.odd = {"limit": (0.0, float("inf")), "type": torch.bfloat16, "object": object(), 3: {1.0}}
    found = read_configuration(own_vlm)
    assert [found[f"odd.{name}"] for name in ("limit", "type", "object", "3")] == [
        [0.0, "inf"],
        "bfloat16",
        "object",
        [1.0],
    ]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert list(found) == sorted(found)


def test_a_model_without_a_usual_processor_has_a_configuration(vlm: Vlm) -> None:
    class Own:
        tokenizer = object()

        def __call__(self) -> None:
            raise NotImplementedError

    found = read_configuration(dataclasses.replace(vlm, processor=Own()))
    assert [key for key in found if key.startswith("processor.")] == ["processor.class"]


def test_a_baseline_gives_back_what_was_written(vlm: Vlm, tmp_path: Path) -> None:
    written = recorded(vlm)
    stored = read_baseline(write_baseline(tmp_path, written, {}, phases_of(written)))
    assert stored.profile.configuration == written.configuration
    assert written.changes(stored.profile) == []


@pytest.mark.usefixtures("tiny_data")
def test_another_configuration_reads_no_kept_readings(own_vlm: Vlm, tmp_path: Path) -> None:
    """The cache has the configuration in its key, so no witness is needed to tell the two models apart."""
    passes: list[int] = []
    own_vlm.anatomy.layers[0].register_forward_pre_hook(lambda _, args: passes.append(len(args[0])))
    before = tiny_profile(own_vlm, cache=tmp_path)
    for layer in own_vlm.anatomy.layers:
        layer.input_layernorm.variance_epsilon *= 1.001
    passes.clear()
    remarks: list[str] = []
    changed = tiny_profile(own_vlm, cache=tmp_path, say=remarks.append)
    assert sum(passes) >= N
    assert (changed.weights, remarks) == (before.weights, [])
    assert changed.configuration != before.configuration
