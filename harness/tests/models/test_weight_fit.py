"""Weights that do not fit their model: the error names the likely cause before loading, unless the user allows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import harness.models.pretrained
from harness.models.checkpoints.weight_fit import refuse_misfit
from harness.models.registry import find_model
from harness.models.vlm import Vlm, load_vlm
from harness.models.weights_error import WeightsError
from harness.run.options import read_options
from harness.tests.support.saved_checkpoints import (
    change_settings,
    change_weights,
    checkpoint,
    checkpoint_templates,
    sharded_checkpoint,
)
from harness.tests.support.tiny import have_same_numbers, tiny_profile, tiny_vlm

__all__ = ["checkpoint", "checkpoint_templates", "sharded_checkpoint"]

Weights = dict[str, torch.Tensor]


def load(folder: Path, *, unused: bool = False, lines: list[str] | None = None) -> Vlm:
    entry = replace(find_model(str(folder)), unused_weights=unused)
    return load_vlm(entry, cache=folder.parent, device="cpu", say=([] if lines is None else lines).append)


def refusal(folder: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        load(folder)
    assert str(folder) in str(caught.value)
    return str(caught.value)


def set_layer_count(part: str, count: int) -> Callable[[dict[str, Any]], object]:
    return lambda config: config[part].update(num_hidden_layers=count)


def add_lora(weights: Weights) -> None:
    for name in [name for name in weights if "language_model" in name and name.endswith("q_proj.weight")]:
        rows, columns = weights[name].shape
        weights[name.replace(".weight", ".lora_A.default.weight")] = torch.ones(2, columns)
        weights[name.replace(".weight", ".lora_B.default.weight")] = torch.ones(rows, 2)


def rename_to_base_layers(weights: Weights) -> None:
    add_lora(weights)
    for name in [name for name in weights if "language_model" in name and name.endswith("q_proj.weight")]:
        weights[name.replace(".weight", ".base_layer.weight")] = weights.pop(name)


@pytest.mark.parametrize(
    ("part", "count", "message"),
    [
        ("text_config", 3, r"does not use \(model\.language_model\.layers\.3\..*, \d+ in all\): config\.json gives "
         r"model\.language_model\.layers 3 layers and the weights have 4: write 4 into"),
        ("text_config", 6, r"lacks weights .*: config\.json gives model\.language_model\.layers 6 layers and the "
         r"weights have 4: write 4 into"),
        ("vision_config", 1, r"config\.json gives model\.vision_tower\.\S+ 1 layers and the weights have 2"),
    ],
)  # fmt: skip
def test_different_layer_counts_of_config_and_weights_are_refused(
    checkpoint: Path, part: str, count: int, message: str
) -> None:
    change_settings(checkpoint / "config.json", set_layer_count(part, count))
    with pytest.raises(WeightsError, match=message):
        load(checkpoint)


def test_of_two_parts_whose_layers_differ_the_first_is_named_in_every_run() -> None:
    configured = [f"part_{chr(97 + index)}.layers.1.weight" for index in range(20)]
    stored = [name.replace(".1.", ".0.") for name in configured]
    info = {"unexpected_keys": (), "missing_keys": configured, "mismatched_keys": ()}
    entry = replace(find_model("llava-1.5-7b"), source="mine")
    with pytest.raises(WeightsError, match=r"config\.json gives part_a\.layers 2 layers and the weights have 1"):
        refuse_misfit(info, [*configured, *stored], entry)


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (add_lora, r"does not use \(.*lora_A.*, 8 in all\): they belong to a PEFT model that was not merged"),
        (
            rename_to_base_layers,
            r"lacks weights of its model \(.*q_proj\.weight, 4 in all\).* not merged: call merge_and_unload",
        ),
        (lambda w: w.update({"extra.weight": torch.ones(2)}), r"\(extra\.weight, 1 in all\): check that config\.json"),
        (
            lambda w: w.update({"lm_head.weight": torch.ones(7, 32)}),
            r"another shape .*\(7, 32\) in the file and \(\d+, ",
        ),
    ],
)
def test_weights_that_belong_to_another_model_are_refused(
    checkpoint: Path, alter: Callable[[Weights], object], message: str
) -> None:
    def replace_head(weights: Weights) -> None:
        alter(weights)
        if any("lm_head" in name and len(tensor) == 7 for name, tensor in weights.items()):
            weights.pop("language_model.lm_head.weight", None)

    change_weights(checkpoint, replace_head)
    with pytest.raises(WeightsError, match=message):
        load(checkpoint)


def store_codes(weights: Weights) -> None:
    name = next(name for name in weights if name.endswith("q_proj.weight") and "language_model" in name)
    weights[name] = (weights[name] * 100).to(torch.int8)


def add_compile_prefix(weights: Weights) -> None:
    for name in list(weights):
        weights[f"_orig_mod.{name}"] = weights.pop(name)


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (
            store_codes,
            r"stores weights as 8-bit codes \(\S*q_proj\.weight, 1 in all\), .* no quantization_config to decode",
        ),
        (add_compile_prefix, "their names begin with '_orig_mod.', the prefix of a wrapper of the model: remove it"),
        (lambda w: w.pop("language_model.lm_head.weight"), r'write "tie_word_embeddings": true into config\.json if'),
    ],
)
def test_each_cause_has_its_own_remedy(checkpoint: Path, alter: Callable[[Weights], object], message: str) -> None:
    change_weights(checkpoint, alter)
    with pytest.raises(WeightsError, match=message):
        load(checkpoint)


def test_weights_are_refused_before_they_are_loaded(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_on_load(*_: object) -> Any:
        raise AssertionError("the weights are loaded")

    change_settings(checkpoint / "config.json", set_layer_count("text_config", 3))
    monkeypatch.setattr(harness.models.pretrained, "placement_options", fail_on_load)
    assert "does not use" in refusal(checkpoint)


def test_loaded_weights_are_checked_if_no_trial_is_possible(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change_settings(checkpoint / "config.json", set_layer_count("text_config", 3))
    monkeypatch.setattr(harness.models.pretrained, "try_weights", lambda *_: None)
    assert "the weights have 4" in refusal(checkpoint)


def test_a_user_may_allow_unused_weights(checkpoint: Path) -> None:
    lines: list[str] = []
    change_settings(checkpoint / "config.json", set_layer_count("text_config", 3))
    assert refusal(checkpoint).endswith(f"to measure without them add --phase-allow-unused-weights {checkpoint}")
    assert load(checkpoint, unused=True, lines=lines).anatomy.depth == 3
    assert len(lines) == 1
    assert lines[0].startswith(
        f"UNUSED WEIGHTS of the checkpoint {checkpoint} are ignored, as --phase-allow-unused-weights"
    )
    change_settings(checkpoint / "config.json", set_layer_count("text_config", 5))
    with pytest.raises(WeightsError, match="lacks weights"):
        load(checkpoint, unused=True)


def test_a_weight_under_an_old_and_a_new_name_is_refused(checkpoint: Path) -> None:
    name = "language_model.model.layers.0.self_attn.q_proj.weight"
    change_weights(checkpoint, lambda w: w.update({f"model.{name.replace('.model', '')}": torch.zeros_like(w[name])}))
    assert "has two weights for one weight of its model (language_model.model.layers.0" in refusal(checkpoint)
    assert load(checkpoint, unused=True).anatomy.depth == 4


def test_copies_that_older_releases_saved_are_harmless(checkpoint: Path, tiny_data: None) -> None:
    def alter(weights: Weights) -> None:
        weights["language_model.model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
        weights["vision_tower.vision_model.embeddings.position_ids"] = torch.arange(17)

    change_weights(checkpoint, alter)
    assert have_same_numbers(tiny_profile(load(checkpoint)), tiny_profile(tiny_vlm()))


def test_a_head_that_is_tied_by_name_only_is_refused(checkpoint: Path) -> None:
    change_settings(checkpoint / "config.json", lambda config: config.update(tie_word_embeddings=True))
    assert "its head and its embeddings are one weight (tie_word_embeddings), but its weights have two" in refusal(
        checkpoint
    )
    load(checkpoint, unused=True)
    name = next(name for name in load_file(checkpoint / "model.safetensors") if "embed_tokens" in name)
    change_weights(checkpoint, lambda weights: weights.update({"lm_head.weight": weights[name].clone()}))
    change_weights(checkpoint, lambda weights: weights.pop("language_model.lm_head.weight", None))
    model = load(checkpoint).model
    assert torch.equal(model.get_output_embeddings().weight, model.get_input_embeddings().weight)


def test_a_quantised_configuration_over_plain_weights_is_refused(checkpoint: Path) -> None:
    quantised = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    change_settings(checkpoint / "config.json", lambda config: config.update(quantization_config=quantised))
    assert "remove quantization_config from config.json" in refusal(checkpoint)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantised_directory_is_loaded_as_it_was_saved(checkpoint: Path, tmp_path: Path, bits: int) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

    settings = BitsAndBytesConfig(load_in_4bit=bits == 4, load_in_8bit=bits == 8)
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32, quantization_config=settings)
    model.save_pretrained(tmp_path / "quantised")
    tiny_vlm().processor.save_pretrained(tmp_path / "quantised")
    vlm = load(tmp_path / "quantised")
    assert type(vlm.anatomy.layers[0].self_attn.q_proj).__module__.startswith("bitsandbytes")
    stored = dict(model.named_parameters())
    assert all(torch.equal(weight, stored[name]) for name, weight in vlm.model.named_parameters())


def test_an_option_allows_unused_weights_for_one_checkpoint(project: pytest.Pytester) -> None:
    named = ("--phase-model", "someone/mine", "--phase-model", "someone/other")
    options = read_options(project.parseconfig(*named, "--phase-allow-unused-weights", "someone/mine"))
    assert [entry.unused_weights for entry in options.models] == [True, False]
    assert [entry.trusted for entry in options.models] == [False, False]
    project.makeini("[pytest]\nphase_allow_unused_weights = someone/other\n")
    assert [entry.unused_weights for entry in read_options(project.parseconfig(*named)).models] == [False, True]
    with pytest.raises(pytest.UsageError, match="--phase-allow-unused-weights someone/third: this run has no such"):
        read_options(project.parseconfig(*named, "--phase-allow-unused-weights", "someone/third"))
