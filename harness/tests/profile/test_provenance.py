"""A weights hash changes with every number of a model; environments are ranked by how comparable they are."""

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


def test_looking_and_running_do_not_change_the_hash(own_vlm: Vlm) -> None:
    before = hash_weights(own_vlm.model)
    own_vlm.model.train()
    with torch.inference_mode():
        own_vlm.model(input_ids=torch.tensor([[1, 5, 6]]), use_cache=False)
    assert hash_weights(own_vlm.model) == before


def test_every_parameter_and_buffer_counts(own_vlm: Vlm) -> None:
    """One element of each tensor in turn, non-persistent buffers included; put back, the hash is the old one."""
    model = own_vlm.model
    before = hash_weights(model)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert any(name.endswith("inv_freq") for name in tensors)
    seen = {before}
    for tensor in tensors.values():
        flat = tensor.data.view(-1)
        old = flat[-1].clone()
        flat[-1] += 1
        seen.add(hash_weights(model))
        flat[-1] = old
    assert len(seen) == len(tensors) + 1
    assert hash_weights(model) == before


def test_name_shape_and_type_count() -> None:
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


def test_nearness_ranks_dtype_before_device_before_its_name_before_backend_before_versions() -> None:
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
    # A single more important field outweighs all less important ones together.
    for less, more in itertools.pairwise(range(1, len(changes) + 1)):
        names = list(changes)
        lesser = dataclasses.replace(HERE, **{field: changes[field] for field in names[:less]})
        greater = dataclasses.replace(HERE, **{names[more - 1]: changes[names[more - 1]]})
        assert HERE.nearness(lesser) > HERE.nearness(greater)


@pytest.mark.parametrize(("torch_version", "near"), [("2.15.3", True), ("2.15.0+cu130", True), ("2.14.0", False)])
def test_a_patch_release_is_as_near_as_the_same_release(torch_version: str, near: bool) -> None:
    other = dataclasses.replace(HERE, torch=torch_version)
    assert (HERE.nearness(other) == HERE.nearness(HERE)) == near
    assert HERE.nearness(other) == other.nearness(HERE)


def test_differences_name_what_changed_from_what_to_what() -> None:
    assert HERE.differences(HERE) == []
    old = dataclasses.replace(HERE, torch="2.14.0", dtype="bfloat16")
    assert HERE.differences(old) == ["torch: 2.14.0 -> 2.15.0", "dtype: bfloat16 -> float32"]


def test_the_environment_of_a_model(vlm: Vlm) -> None:
    found = environment(vlm.device, vlm.dtype, vlm.attention)
    assert (found.device, found.dtype, found.attention) == ("cpu", "float32", "sdpa")
    assert found.torch == torch.__version__.split("+")[0]
    assert found.device_name
    assert str(found) == (
        f"torch {found.torch}, transformers {found.transformers}, cpu ({found.device_name}), float32, sdpa"
    )
