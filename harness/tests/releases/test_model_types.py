"""Every vision-language type of the installed transformers, as a tiny random model: measured exactly, or refused."""

from __future__ import annotations

import re
from contextlib import nullcontext
from functools import cache

import pytest
import torch
import transformers

from harness.models.anatomy import find_anatomy
from harness.models.kinds import KINDS
from harness.probe.attention import _GATE, _connections
from harness.probe.noise import replace_features_by_noise
from harness.releases.sweep.exactness import ExactnessError, examine
from harness.releases.sweep.type_verdicts import (
    TypeOutcome,
    TypeVerdict,
    types_page,
    types_record,
    verdict_on,
    vision_language_types,
)
from harness.releases.tiny.prompts import TinyPrompt, tiny_prompt
from harness.releases.tiny.tiny_fields import TINY_FIELDS
from harness.releases.tiny.tiny_model import DEPTH, tiny_config, tiny_model
from harness.tests.support.documented_release import TYPES_PAGE, expecting_upstream_failures

TYPES = vision_language_types()
# Types whose forward pass fails in a release of transformers, with the reason.
BROKEN = {("llama4", "5.24"): "its forward pass reads image_outputs of the language model's output, which do not exist"}
# Of the 97 types of transformers 5.23; older releases have fewer.
LEAST_SHARE = 72 / 97


@cache
def verdict(model_type: str) -> TypeVerdict:
    return verdict_on(model_type, TYPES[model_type])


@pytest.mark.types
@pytest.mark.parametrize("model_type", TYPES)
def test_a_type_is_measured_or_refused_for_a_reason(model_type: str) -> None:
    result = verdict(model_type)
    reason = BROKEN.get((model_type, ".".join(transformers.__version__.split(".")[:2])))
    if reason is not None:
        assert result.outcome is TypeOutcome.FAILED, "fixed upstream: remove it from BROKEN"
        pytest.xfail(f"transformers {transformers.__version__}: {reason}")
    with expecting_upstream_failures():
        assert result.outcome is not TypeOutcome.FAILED, result.remark
    assert result.outcome is TypeOutcome.MEASURED or result.remark


def test_a_type_that_another_release_breaks_fails_no_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers, "__version__", "9.0.0")
    with (
        pytest.raises(pytest.xfail.Exception, match=r"failed \(upstream\): KeyError: rope"),
        expecting_upstream_failures(),
    ):
        raise AssertionError("KeyError: rope")
    (version,) = re.findall(r"With transformers (\S+) and torch", TYPES_PAGE.read_text())
    monkeypatch.setattr(transformers, "__version__", version)
    with pytest.raises(AssertionError, match="KeyError: rope"), expecting_upstream_failures():
        raise AssertionError("KeyError: rope")


@pytest.mark.types
def test_enough_types_are_measured_and_the_page_agrees() -> None:
    verdicts = [verdict(model_type) for model_type in TYPES]
    assert sum(type_verdict.outcome is TypeOutcome.MEASURED for type_verdict in verdicts) >= LEAST_SHARE * len(TYPES)
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    if f"transformers {transformers.__version__} and torch {torch.__version__}:" in TYPES_PAGE.read_text():
        stated, measured = TYPES_PAGE.read_text(), _page(verdicts, versions)
        untried = untried_types(stated) | untried_types(measured)
        assert settled_lines(measured, untried) == settled_lines(stated, untried)


def untried_types(text: str) -> set[str]:
    """Return the types of a page that were not tried because a library was missing."""
    return {line.split()[1] for line in text.splitlines() if "a library is missing here" in line}


def settled_lines(text: str, untried: set[str]) -> list[str]:
    """Return the lines of a page without the rows of `untried` types and without column widths.

    Numbers are masked because the number of codes that two images share may depend on the processor.
    """
    lines = [re.sub(r"\d+", "N", re.sub(r"-{3,}", "---", " ".join(line.split()))) for line in text.splitlines()]
    names = {re.sub(r"\d+", "N", name) for name in untried}
    return [line for line in lines if not (line.startswith("| `") and line.split()[1] in names)]


def test_pages_are_compared_by_the_types_that_both_environments_tried() -> None:
    versions = {"transformers": "5.0", "torch": "2.0"}
    complete = [TypeVerdict(name, TypeOutcome.MEASURED, "", 1.0) for name in ("a1", "b2")]
    incomplete = [
        complete[0],
        TypeVerdict("b2", TypeOutcome.REFUSED, f"not tried, a library is missing here: {'b2 ' * 30}", 0.0),
    ]
    worse = [TypeVerdict("a1", TypeOutcome.FAILED, "KeyError", 1.0), complete[1]]
    pages = [_page(verdicts, versions) for verdicts in (complete, incomplete, worse)]
    untried = untried_types(pages[1])
    assert untried == {"`b2`"}
    same, other, changed = (settled_lines(page, untried) for page in pages)
    assert [line for line in same if line.startswith("|")] == [line for line in other if line.startswith("|")]
    assert same != changed


def _page(verdicts: list[TypeVerdict], versions: dict[str, str]) -> str:
    return types_page(verdicts, versions, name="docs/model-types.md", depth=DEPTH)


# In order: plain; last layers share earlier keys; gated attention beside layers without softmax attention;
# states added between layers; positions marked by an input; learned row ends.
KNOWN_REMARKS = {
    "llava": "",
    "gemma4": "",
    "qwen3_5": "no softmax attention in layers 1, 2, 3",
    "qwen3_vl": "adds states between layers: residual points 1, 2, 3",
    "kosmos-2": "attention by weight only in layers 1, 2, 3, 4",
    "llava_next": "16 of 272 image positions hold learned vectors, which count as neither image nor text",
}


@pytest.mark.parametrize("model_type", KNOWN_REMARKS)
def test_a_type_has_its_known_remark(model_type: str) -> None:
    result = verdict(model_type)
    with expecting_upstream_failures():
        assert result.outcome is TypeOutcome.MEASURED
        assert KNOWN_REMARKS[model_type] in result.remark
        assert bool(KNOWN_REMARKS[model_type]) == bool(result.remark)


@pytest.mark.parametrize("model_type", ["mllama", "florence2", "qwen4_exp"])
def test_a_refused_type_has_a_reason(model_type: str) -> None:
    result = verdict(model_type)
    assert result.outcome is TypeOutcome.REFUSED
    assert result.remark


@pytest.mark.skipif("inkling2" not in TYPES, reason="this transformers has no Inkling 2")
def test_a_type_with_several_states_per_layer_is_refused_for_them() -> None:
    """Its gated output projection would be a second reason for the refusal."""
    result = verdict("inkling2")
    assert result.outcome is TypeOutcome.REFUSED
    assert "no single stream to measure" in result.remark


def test_every_row_of_the_tables_names_an_existing_type() -> None:
    if transformers.__version__.startswith("5.24"):
        assert {*KINDS, *TINY_FIELDS} - {"pixtral"} <= set(TYPES)
    assert all(kind.reason for kind in KINDS.values())
    assert all(reason and fields for reason, fields in TINY_FIELDS.values())


def test_gates_are_part_of_the_contributions() -> None:
    model = tiny_model("qwen3_5", TYPES["qwen3_5"])
    anatomy = find_anatomy(model)
    examine(model, anatomy, tiny_prompt(model, anatomy))
    gated = anatomy.layers[-1].self_attn.o_proj
    assert _connections[gated] == _GATE
    assert anatomy.softmax_layers == (3,)


def _tiny_llava() -> tuple[object, object, TinyPrompt]:
    model = tiny_model("llava", TYPES["llava"])
    anatomy = find_anatomy(model)
    return model, anatomy, tiny_prompt(model, anatomy)


def test_wrong_image_positions_are_detected() -> None:
    model, anatomy, prompt = _tiny_llava()
    spoiled = prompt.groups.image.roll(1, dims=1)
    groups = type(prompt.groups)(spoiled, *(getattr(prompt.groups, name) for name in prompt.groups.__slots__[1:]))
    with pytest.raises(Exception, match="the model inserts image features at 128 positions"):
        examine(model, anatomy, TinyPrompt(prompt.inputs, groups, prompt.separators))


def test_a_model_that_ignores_its_pixels_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    model, anatomy, prompt = _tiny_llava()
    features = model.model.get_image_features(prompt.inputs["pixel_values"])
    monkeypatch.setattr(model.model, "get_image_features", lambda *_, **__: features)
    with pytest.raises(ExactnessError, match="no position changes with the pixels"):
        examine(model, anatomy, prompt)


def test_random_weights_are_reproducible() -> None:
    first, second = (tiny_model("llava", TYPES["llava"]) for _ in range(2))
    for weights, expected in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(weights, expected)


@pytest.mark.parametrize("model_type", ["gemma4", "gemma4_unified"])
def test_layers_that_share_keys_and_values_see_the_full_prompt(model_type: str) -> None:
    """With `logits_to_keep`, their last two layers would process the last token only."""
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
    verdicts = [
        TypeVerdict("a", TypeOutcome.MEASURED, "", 1.04),
        TypeVerdict("b", TypeOutcome.REFUSED, "one | reason", 0.0),
    ]
    versions = {"transformers": "5.0", "torch": "2.0"}
    text = types_page(verdicts, versions, name="types.md", depth=4)
    assert "**1 of 2 types measured, 1 refused" in text
    assert "one \\| reason" in text
    assert types_record(verdicts, versions)["types"]["a"] == {"verdict": "measured", "remark": "", "seconds": 1.0}


def test_noise_replaces_the_features_added_to_later_layers() -> None:
    """Three layers of this type add image features to the image tokens; the control must replace these too."""
    model = tiny_model("qwen3_vl", TYPES["qwen3_vl"])
    anatomy = find_anatomy(model)
    prompt = tiny_prompt(model, anatomy)
    image, states = prompt.groups.image, {"in": {}, "out": {}}
    handles = []
    for point, layer in enumerate(anatomy.layers):
        handles.append(
            layer.register_forward_hook(lambda _, __, out, i=point: _store(states["out"], i + 1, out[image]))
        )

    def added(*, noisy: bool) -> list[torch.Tensor]:
        with replace_features_by_noise(anatomy, image, [3, 4]) if noisy else nullcontext():
            for point, layer in enumerate(anatomy.layers):
                hook = layer.register_forward_pre_hook(lambda _, args, i=point: _store(states["in"], i, args[0][image]))
                handles.append(hook)
            with torch.inference_mode():
                model(**prompt.inputs, use_cache=False, logits_to_keep=1)
        return [states["in"][point] - states["out"][point] for point in range(1, anatomy.depth)]

    for real, control in zip(added(noisy=False), added(noisy=True), strict=True):
        assert float(real.norm(dim=-1).min()) > 0.1
        torch.testing.assert_close(control.norm(dim=-1), real.norm(dim=-1), rtol=1e-3, atol=1e-3)
        assert float(torch.nn.functional.cosine_similarity(control, real, dim=-1).abs().mean()) < 0.2


def _store(states_by_point: dict[int, torch.Tensor], point: int, state: torch.Tensor) -> None:
    states_by_point[point] = state.clone()
