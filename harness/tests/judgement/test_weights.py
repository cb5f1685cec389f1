"""Hashes by part name exactly the parts whose numbers differ, and say where models cannot be laid side by side."""

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
    """Change one number of a tensor by as little as its type can."""
    with torch.no_grad():
        flat = tensor.view(-1)
        flat[-1] = torch.nextafter(flat[-1], torch.tensor(torch.inf))


def test_the_same_weights_are_the_same_in_every_part(vlm: Vlm) -> None:
    found = weight_change(weight_parts(vlm), weight_parts(tiny_vlm()))
    assert found == WeightChange(same_layers=(1, 2, 3, 4), same_others=AROUND)
    assert found.describe() == "weights are the same"


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
def test_one_number_names_its_part(
    vlm: Vlm, fresh_vlm: Vlm, change: Callable[[Vlm], None], layers: tuple[int, ...], others: tuple[str, ...]
) -> None:
    change(fresh_vlm)
    found = weight_change(weight_parts(fresh_vlm), weight_parts(vlm))
    assert (found.layers, found.others) == (layers, others)
    assert sorted((*found.layers, *found.same_layers)) == [1, 2, 3, 4]
    assert sorted((*found.others, *found.same_others)) == sorted(AROUND)


def test_the_line_names_layers_as_ranges(vlm: Vlm, fresh_vlm: Vlm) -> None:
    for layer in fresh_vlm.anatomy.layers[2:]:
        nudge(layer.mlp.up_proj.weight)
    said = weight_change(weight_parts(fresh_vlm), weight_parts(vlm)).describe()
    assert said == f"weights differ in layers 3-4; the same in layers 1-2, {', '.join(AROUND)}"


def test_a_tied_unembedding_counts_in_both_places(fresh_vlm: Vlm) -> None:
    table = fresh_vlm.model.model.language_model.embed_tokens
    fresh_vlm.anatomy.unembedding.weight = table.weight
    before = weight_parts(fresh_vlm)
    nudge(table.weight)
    found = weight_change(weight_parts(fresh_vlm), before)
    assert found.others == ("model.language_model.embed_tokens", "unembedding")


def test_parts_before_the_decoder_are_named_by_their_way_to_it() -> None:
    parts = weight_parts(random_instructblip(REDUCED))
    names = {"language_model.model.embed_tokens", "language_model.model.rotary_emb", "language_projection"}
    assert parts.others.keys() == names | {"qformer", "query_tokens", "vision_model", "final norm", "unembedding"}


def test_other_shapes_and_types_are_told_apart(vlm: Vlm, fresh_vlm: Vlm) -> None:
    fresh_vlm.anatomy.layers[1].mlp.to(torch.bfloat16)
    odd = tiny_vlm(bias=False)
    found = weight_change(weight_parts(fresh_vlm), weight_parts(vlm))
    assert (found.layers, found.restructured) == ((2,), ())
    shapes = weight_change(weight_parts(odd), weight_parts(vlm))
    assert shapes.restructured == ("layer 1", "layer 2", "layer 3", "layer 4")
    assert shapes.describe().endswith("; with other tensor names or shapes: layers 1-4")


def test_models_of_other_depth_are_not_laid_side_by_side(vlm: Vlm) -> None:
    parts = weight_parts(vlm)
    deeper = weight_change(parts, weight_parts(tiny_vlm(layers=5)))
    assert deeper == WeightChange(reason="4 and 5 layers, so they are not compared part by part")
    assert deeper.describe() == "weights: 4 and 5 layers, so they are not compared part by part"


def test_parts_that_only_one_model_has_are_named_beside_what_both_have(vlm: Vlm) -> None:
    parts = weight_parts(vlm)
    without = dataclasses.replace(
        parts, others={name: part for name, part in parts.others.items() if name != "model.vision_tower"}
    )
    for pair in ((parts, without), (without, parts)):
        found = weight_change(*pair)
        assert (found.layers, found.same_layers, found.unshared) == ((), (1, 2, 3, 4), ("model.vision_tower",))
        assert found.describe().startswith("weights are the same in layers 1-4, model.language_model.embed_tokens, ")
        assert found.describe().endswith("; only one of the models has model.vision_tower")


def test_tensors_without_numbers_are_neither_the_same_nor_different(vlm: Vlm, fresh_vlm: Vlm) -> None:
    fresh_vlm.anatomy.layers[1].to("meta")
    parts = weight_parts(fresh_vlm)
    found = weight_change(parts, parts)
    assert (found.layers, found.same_layers, found.unread) == ((), (1, 3, 4), ("layer 2",))
    assert found.describe() == "weights are the same; not compared, because numbers are unavailable: layer 2"
