"""Every vision-language type of the installed transformers, as a tiny random model: measured exactly, or refused."""

from __future__ import annotations

import re
from contextlib import nullcontext
from functools import cache
from pathlib import Path

import pytest
import torch
import transformers

from harness.models.anatomy import find_anatomy
from harness.models.kinds import KINDS
from harness.probe.attention import _GATE, _between
from harness.probe.noise import replace_features_by_noise
from harness.releases.sweep.exactness import ExactnessError, examine
from harness.releases.sweep.prompts import TinyPrompt, tiny_prompt
from harness.releases.sweep.tiny_fields import TINY_FIELDS
from harness.releases.sweep.tiny_model import DEPTH, tiny_config, tiny_model
from harness.releases.sweep.type_verdicts import (
    TypeOutcome,
    TypeVerdict,
    page,
    record,
    verdict_on,
    vision_language_types,
)

TYPES = vision_language_types()
PAGE = Path(__file__).parents[3] / "docs" / "model-types.md"
# What fails in a release of transformers by itself, whatever one asks of the model.
BROKEN = {("llama4", "5.24"): "its forward pass asks the language model's output for image_outputs, which it has not"}
# Of the 97 types of transformers 5.23; older releases have fewer.
LEAST_SHARE = 72 / 97


@cache
def verdict(model_type: str) -> TypeVerdict:
    return verdict_on(model_type, TYPES[model_type])


@pytest.mark.types
@pytest.mark.parametrize("model_type", TYPES)
def test_a_type_is_measured_or_refused_for_a_reason(model_type: str) -> None:
    found = verdict(model_type)
    reason = BROKEN.get((model_type, ".".join(transformers.__version__.split(".")[:2])))
    if reason is not None:
        assert found.outcome is TypeOutcome.FAILED, "mended upstream: take it out of BROKEN"
        pytest.xfail(f"transformers {transformers.__version__}: {reason}")
    assert found.outcome is not TypeOutcome.FAILED, found.remark
    assert found.outcome is TypeOutcome.MEASURED or found.remark


@pytest.mark.types
def test_enough_types_are_measured_and_the_page_says_so() -> None:
    found = [verdict(model_type) for model_type in TYPES]
    assert sum(one.outcome is TypeOutcome.MEASURED for one in found) >= LEAST_SHARE * len(TYPES)
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    if f"transformers {transformers.__version__} and torch {torch.__version__}:" in PAGE.read_text():
        stated, now = PAGE.read_text(), _page(found, versions)
        untried = untried_types(stated) | untried_types(now)
        assert settled_lines(now, untried) == settled_lines(stated, untried)


def untried_types(text: str) -> set[str]:
    """Return the types of a page for which a library was missing where it was made."""
    return {line.split()[1] for line in text.splitlines() if "a library is missing here" in line}


def settled_lines(text: str, untried: set[str]) -> list[str]:
    """Return the lines of a page without the rows of some types and the widths of the table's columns.

    How many codes two pictures share may differ from processor to processor, so numbers are left out.
    """
    lines = [re.sub(r"\d+", "N", re.sub(r"-{3,}", "---", " ".join(line.split()))) for line in text.splitlines()]
    names = {re.sub(r"\d+", "N", name) for name in untried}
    return [line for line in lines if not (line.startswith("| `") and line.split()[1] in names)]


def test_pages_from_environments_with_other_libraries_are_compared_by_what_both_tried() -> None:
    versions = {"transformers": "5.0", "torch": "2.0"}
    here = [TypeVerdict(name, TypeOutcome.MEASURED, "", 1.0) for name in ("a1", "b2")]
    there = [
        here[0],
        TypeVerdict("b2", TypeOutcome.REFUSED, f"not tried, a library is missing here: {'b2 ' * 30}", 0.0),
    ]
    worse = [TypeVerdict("a1", TypeOutcome.FAILED, "KeyError", 1.0), here[1]]
    pages = [_page(found, versions) for found in (here, there, worse)]
    untried = untried_types(pages[1])
    assert untried == {"`b2`"}
    same, other, changed = (settled_lines(page, untried) for page in pages)
    assert [line for line in same if line.startswith("|")] == [line for line in other if line.startswith("|")]
    assert same != changed


def _page(found: list[TypeVerdict], versions: dict[str, str]) -> str:
    return page(found, versions, name="docs/model-types.md", depth=DEPTH)


# Plain; last layers with the keys of earlier ones; gated, beside layers without softmax attention; states added between
# layers; positions marked by an input; learned ends of rows.
KNOWN = {
    "llava": "",
    "gemma4": "",
    "qwen3_5": "no softmax attention in layers 1, 2, 3",
    "qwen3_vl": "adds states between layers: residual points 1, 2, 3",
    "kosmos-2": "attention by weight only in layers 1, 2, 3, 4",
    "llava_next": "16 of 272 image positions hold learned vectors, which count as neither image nor text",
}


@pytest.mark.parametrize("model_type", KNOWN)
def test_what_is_said_of_a_type(model_type: str) -> None:
    found = verdict(model_type)
    assert found.outcome is TypeOutcome.MEASURED
    assert KNOWN[model_type] in found.remark
    assert bool(KNOWN[model_type]) == bool(found.remark)


@pytest.mark.parametrize("model_type", ["mllama", "florence2", "qwen4_exp"])
def test_a_refused_type_has_a_reason(model_type: str) -> None:
    found = verdict(model_type)
    assert found.outcome is TypeOutcome.REFUSED
    assert found.remark


@pytest.mark.skipif("inkling2" not in TYPES, reason="this transformers has no Inkling 2")
def test_a_type_with_several_states_a_layer_is_refused_for_these() -> None:
    """Its gated output projection is no linear layer either, which another model could be rid of."""
    found = verdict("inkling2")
    assert found.outcome is TypeOutcome.REFUSED
    assert "no one stream to follow" in found.remark


def test_a_row_of_the_table_is_about_a_type_that_exists() -> None:
    if transformers.__version__.startswith("5.24"):
        assert {*KINDS, *TINY_FIELDS} - {"pixtral"} <= set(TYPES)
    assert all(kind.reason for kind in KINDS.values())
    assert all(reason and fields for reason, fields in TINY_FIELDS.values())


def test_gates_are_part_of_the_contributions() -> None:
    model = tiny_model("qwen3_5", TYPES["qwen3_5"])
    anatomy = find_anatomy(model)
    examine(model, anatomy, tiny_prompt(model, anatomy))
    gated = anatomy.layers[-1].self_attn.o_proj
    assert _between[gated] == _GATE
    assert anatomy.softmax_layers == (3,)


def _llava() -> tuple[object, object, TinyPrompt]:
    model = tiny_model("llava", TYPES["llava"])
    anatomy = find_anatomy(model)
    return model, anatomy, tiny_prompt(model, anatomy)


def test_other_image_positions_are_found_wrong() -> None:
    model, anatomy, prompt = _llava()
    spoiled = prompt.groups.image.roll(1, dims=1)
    groups = type(prompt.groups)(spoiled, *(getattr(prompt.groups, name) for name in prompt.groups.__slots__[1:]))
    with pytest.raises(Exception, match="the model puts image features at 128 positions"):
        examine(model, anatomy, TinyPrompt(prompt.inputs, groups, prompt.separators))


def test_a_model_that_is_deaf_to_its_pixels_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    model, anatomy, prompt = _llava()
    features = model.model.get_image_features(prompt.inputs["pixel_values"])
    monkeypatch.setattr(model.model, "get_image_features", lambda *_, **__: features)
    with pytest.raises(ExactnessError, match="no position changes with the pixels"):
        examine(model, anatomy, prompt)


def test_weights_are_drawn_the_same_each_time() -> None:
    first, second = (tiny_model("llava", TYPES["llava"]) for _ in range(2))
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("model_type", ["gemma4", "gemma4_unified"])
def test_layers_that_share_keys_and_values_see_the_whole_prompt(model_type: str) -> None:
    """Asked for a number of logits, their last two layers would run on the last token only."""
    model = tiny_model(model_type, TYPES[model_type])
    anatomy = find_anatomy(model)
    assert anatomy.text_config.num_kv_shared_layers == 2
    assert examine(model, anatomy, tiny_prompt(model, anatomy)) == []


def test_a_tiny_configuration_keeps_every_kind_of_layer_and_small_ids() -> None:
    config = tiny_config("gemma3").get_text_config(decoder=True)
    assert config.num_hidden_layers == len(config.layer_types) == DEPTH
    assert set(config.layer_types) == {"sliding_attention", "full_attention"}
    assert tiny_config("llava").image_token_id < config.vocab_size


def test_page_and_record_count_the_outcomes() -> None:
    found = [
        TypeVerdict("a", TypeOutcome.MEASURED, "", 1.04),
        TypeVerdict("b", TypeOutcome.REFUSED, "one | reason", 0.0),
    ]
    versions = {"transformers": "5.0", "torch": "2.0"}
    text = page(found, versions, name="types.md", depth=4)
    assert "**1 of 2 types measured, 1 refused" in text
    assert "one \\| reason" in text
    assert record(found, versions)["types"]["a"] == {"verdict": "measured", "remark": "", "seconds": 1.0}


def test_noise_takes_the_place_of_what_later_layers_are_shown() -> None:
    """Three layers of this type add picture features to the image tokens: the control must not show these."""
    model = tiny_model("qwen3_vl", TYPES["qwen3_vl"])
    anatomy = find_anatomy(model)
    prompt = tiny_prompt(model, anatomy)
    image, seen = prompt.groups.image, {"in": {}, "out": {}}
    handles = []
    for point, layer in enumerate(anatomy.layers):
        handles.append(layer.register_forward_hook(lambda _, __, out, at=point: _keep(seen["out"], at + 1, out[image])))

    def added(*, noisy: bool) -> list[torch.Tensor]:
        with replace_features_by_noise(anatomy, image, [3, 4]) if noisy else nullcontext():
            for point, layer in enumerate(anatomy.layers):
                hook = layer.register_forward_pre_hook(lambda _, args, at=point: _keep(seen["in"], at, args[0][image]))
                handles.append(hook)
            with torch.inference_mode():
                model(**prompt.inputs, use_cache=False, logits_to_keep=1)
        return [seen["in"][point] - seen["out"][point] for point in range(1, anatomy.depth)]

    for real, control in zip(added(noisy=False), added(noisy=True), strict=True):
        assert float(real.norm(dim=-1).min()) > 0.1
        torch.testing.assert_close(control.norm(dim=-1), real.norm(dim=-1), rtol=1e-3, atol=1e-3)
        assert float(torch.nn.functional.cosine_similarity(control, real, dim=-1).abs().mean()) < 0.2


def _keep(where: dict[int, torch.Tensor], point: int, states: torch.Tensor) -> None:
    where[point] = states.clone()
