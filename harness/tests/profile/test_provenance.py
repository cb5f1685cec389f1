"""Weight hashes, which change with every weight, and environments, which are ranked by comparability."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from torch import nn

from harness.models.vlm import Vlm
from harness.profile.environment import Environment, environment
from harness.tests.support.saved_weights import hash_weights
from harness.tests.support.tiny import tiny_vlm

HERE = Environment("2.15.0", "5.23.0", "cpu", "Some CPU", "float32", "sdpa")


def test_the_same_model_has_the_same_hash(vlm: Vlm) -> None:
    first = hash_weights(vlm.model)
    assert hash_weights(vlm.model) == first == hash_weights(tiny_vlm().model)
    assert len(first) == 16
    assert int(first, 16) >= 0


def test_hashing_and_running_a_model_do_not_change_the_hash(fresh_vlm: Vlm) -> None:
    before = hash_weights(fresh_vlm.model)
    fresh_vlm.model.train()
    with torch.inference_mode():
        fresh_vlm.model(input_ids=torch.tensor([[1, 5, 6]]), use_cache=False)
    assert hash_weights(fresh_vlm.model) == before


def test_the_hash_changes_with_every_parameter_and_buffer(fresh_vlm: Vlm) -> None:
    """Each tensor, including non-persistent buffers, is changed in one element and then restored."""
    model = fresh_vlm.model
    before = hash_weights(model)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert any(name.endswith("inv_freq") for name in tensors)
    hashes = {before}
    for tensor in tensors.values():
        flat = tensor.data.view(-1)
        original = flat[-1].clone()
        flat[-1] += 1
        hashes.add(hash_weights(model))
        flat[-1] = original
    assert len(hashes) == len(tensors) + 1
    assert hash_weights(model) == before


def test_the_hash_does_not_depend_on_the_number_of_threads(vlm: Vlm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    alone = hash_weights(vlm.model)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    assert hash_weights(vlm.model) == alone


def test_the_hash_changes_with_name_shape_and_dtype() -> None:
    def hashed(**tensors: torch.Tensor) -> str:
        module = nn.Module()
        for name, tensor in tensors.items():
            module.register_buffer(name, tensor.clone())
        return hash_weights(module)

    zeros = torch.zeros(4)
    variants = [
        hashed(a=zeros),
        hashed(b=zeros),
        hashed(a=zeros.view(2, 2)),
        hashed(a=zeros.int()),
        hashed(a=zeros, b=zeros),
        hashed(a=torch.zeros(())),
        hashed(a=torch.zeros(0)),
        hashed(a=torch.zeros(4, dtype=torch.bfloat16)),
        hashed(a=torch.zeros(4, device="meta")),
    ]
    assert len(set(variants)) == len(variants)
    assert hashed(a=zeros, b=zeros + 1) == hashed(b=zeros + 1, a=zeros)
    assert hashed(a=torch.arange(6.0).view(2, 3).T) == hashed(a=torch.arange(6.0).view(2, 3).T.contiguous())


def test_nearness_ranks_dtype_device_device_name_attention_and_versions_in_this_order() -> None:
    changes = {
        "transformers": "4.57.1",
        "attention": "eager",
        "device_name": "Other CPU",
        "device": "cuda",
        "dtype": "bfloat16",
    }
    nearness = [HERE.nearness(dataclasses.replace(HERE, **{field: value})) for field, value in changes.items()]
    assert nearness == sorted(nearness, reverse=True)
    assert len(set(nearness)) == len(nearness)
    assert HERE.nearness(HERE) > nearness[0]
    # A single field outweighs all less important fields together.
    for less, important in itertools.pairwise(range(1, len(changes) + 1)):
        names = list(changes)
        lesser = dataclasses.replace(HERE, **{field: changes[field] for field in names[:less]})
        greater = dataclasses.replace(HERE, **{names[important - 1]: changes[names[important - 1]]})
        assert HERE.nearness(lesser) > HERE.nearness(greater)


@pytest.mark.parametrize(
    ("torch_version", "same_release"), [("2.15.3", True), ("2.15.0+cu130", True), ("2.14.0", False)]
)
def test_a_patch_release_has_the_nearness_of_the_same_release(torch_version: str, same_release: bool) -> None:
    other = dataclasses.replace(HERE, torch=torch_version)
    assert (HERE.nearness(other) == HERE.nearness(HERE)) == same_release
    assert HERE.nearness(other) == other.nearness(HERE)


def test_differences_list_each_changed_field_with_both_values() -> None:
    assert HERE.differences(HERE) == []
    old = dataclasses.replace(HERE, torch="2.14.0", dtype="bfloat16")
    assert HERE.differences(old) == ["torch: 2.14.0 -> 2.15.0", "dtype: bfloat16 -> float32"]


def test_the_environment_of_a_model_has_its_device_dtype_and_attention(vlm: Vlm) -> None:
    measured = environment(vlm.device, vlm.dtype, vlm.attention)
    assert (measured.device, measured.dtype, measured.attention) == ("cpu", "float32", "sdpa")
    assert measured.torch == torch.__version__.split("+")[0]
    assert measured.device_name
    assert str(measured) == (
        f"torch {measured.torch}, transformers {measured.transformers}, cpu ({measured.device_name}), float32, sdpa"
    )
