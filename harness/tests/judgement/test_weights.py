"""Hashes of the weights name exactly the parts whose numbers differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch

from harness.judgement.weights import WeightChange, weight_change, weight_parts
from harness.models.vlm import Vlm
from harness.tests.support.tiny import tiny_vlm
from harness.tests.support.topology import REDUCED, random_instructblip

AROUND = (
    "model.language_model.embed_tokens",
    "model.language_model.rotary_emb",
    "model.multi_modal_projector",
    "model.vision_tower",
    "final norm",
    "unembedding",
)


def nudge(tensor: torch.Tensor) -> None:
    """Change one number of a tensor to the next larger number of its type."""
    with torch.no_grad():
        flat = tensor.view(-1)
        flat[-1] = torch.nextafter(flat[-1], torch.tensor(torch.inf))


def test_the_same_weights_are_the_same_in_every_part(vlm: Vlm) -> None:
    change = weight_change(weight_parts(vlm), weight_parts(tiny_vlm()))
    assert change == WeightChange(same_layers=(1, 2, 3, 4), same_others=AROUND)
    assert change.describe() == "weights are the same"


@pytest.mark.parametrize(
    ("change", "layers", "others"),
    [
        (lambda vlm: nudge(vlm.anatomy.layers[2].mlp.up_proj.weight), (3,), ()),
        (lambda vlm: nudge(vlm.anatomy.layers[0].self_attn.q_proj.bias), (1,), ()),
        (lambda vlm: nudge(vlm.anatomy.final_norm.weight), (), ("final norm",)),
        (lambda vlm: nudge(vlm.anatomy.unembedding.weight), (), ("unembedding",)),
        (lambda vlm: nudge(next(vlm.model.model.vision_tower.parameters())), (), ("model.vision_tower",)),
        (
            lambda vlm: nudge(vlm.model.model.language_model.rotary_emb.inv_freq),
            (),
            ("model.language_model.rotary_emb",),
        ),
    ],
)
def test_a_change_of_one_number_names_its_part(
    vlm: Vlm, fresh_vlm: Vlm, change: Callable[[Vlm], None], layers: tuple[int, ...], others: tuple[str, ...]
) -> None:
    change(fresh_vlm)
    weights_change = weight_change(weight_parts(fresh_vlm), weight_parts(vlm))
    assert (weights_change.layers, weights_change.others) == (layers, others)
    assert sorted((*weights_change.layers, *weights_change.same_layers)) == [1, 2, 3, 4]
    assert sorted((*weights_change.others, *weights_change.same_others)) == sorted(AROUND)


def test_the_line_names_layers_as_ranges(vlm: Vlm, fresh_vlm: Vlm) -> None:
    for layer in fresh_vlm.anatomy.layers[2:]:
        nudge(layer.mlp.up_proj.weight)
    text = weight_change(weight_parts(fresh_vlm), weight_parts(vlm)).describe()
    assert text == f"weights differ in layers 3-4; the same in layers 1-2, {', '.join(AROUND)}"


def test_a_tied_unembedding_counts_as_two_parts(fresh_vlm: Vlm) -> None:
    table = fresh_vlm.model.model.language_model.embed_tokens
    fresh_vlm.anatomy.unembedding.weight = table.weight
    before = weight_parts(fresh_vlm)
    nudge(table.weight)
    change = weight_change(weight_parts(fresh_vlm), before)
    assert change.others == ("model.language_model.embed_tokens", "unembedding")


def test_parts_before_the_decoder_are_named_by_module_path() -> None:
    parts = weight_parts(random_instructblip(REDUCED))
    names = {"language_model.model.embed_tokens", "language_model.model.rotary_emb", "language_projection"}
    assert parts.others.keys() == names | {"qformer", "query_tokens", "vision_model", "final norm", "unembedding"}


def test_changed_shapes_and_changed_types_are_distinguished(vlm: Vlm, fresh_vlm: Vlm) -> None:
    fresh_vlm.anatomy.layers[1].mlp.to(torch.bfloat16)
    odd = tiny_vlm(bias=False)
    change = weight_change(weight_parts(fresh_vlm), weight_parts(vlm))
    assert (change.layers, change.restructured) == ((2,), ())
    shapes = weight_change(weight_parts(odd), weight_parts(vlm))
    assert shapes.restructured == ("layer 1", "layer 2", "layer 3", "layer 4")
    assert shapes.describe().endswith("; with other tensor names or shapes: layers 1-4")


def test_models_of_different_depth_are_not_compared_by_part(vlm: Vlm) -> None:
    parts = weight_parts(vlm)
    deeper = weight_change(parts, weight_parts(tiny_vlm(layers=5)))
    assert deeper == WeightChange(reason="4 and 5 layers, so they are not compared part by part")
    assert deeper.describe() == "weights: 4 and 5 layers, so they are not compared part by part"


def test_parts_that_only_one_model_has_are_listed(vlm: Vlm) -> None:
    parts = weight_parts(vlm)
    without = dataclasses.replace(
        parts, others={name: part for name, part in parts.others.items() if name != "model.vision_tower"}
    )
    for pair in ((parts, without), (without, parts)):
        change = weight_change(*pair)
        assert (change.layers, change.same_layers, change.unshared) == ((), (1, 2, 3, 4), ("model.vision_tower",))
        assert change.describe().startswith("weights are the same in layers 1-4, model.language_model.embed_tokens, ")
        assert change.describe().endswith("; only one of the models has model.vision_tower")


def test_tensors_on_the_meta_device_are_neither_the_same_nor_different(vlm: Vlm, fresh_vlm: Vlm) -> None:
    fresh_vlm.anatomy.layers[1].to("meta")
    parts = weight_parts(fresh_vlm)
    change = weight_change(parts, parts)
    assert (change.layers, change.same_layers, change.unread) == ((), (1, 3, 4), ("layer 2",))
    assert change.describe() == "weights are the same; not compared, because numbers are unavailable: layer 2"
