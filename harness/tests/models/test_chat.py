"""Prompts of unregistered models: choice of the chat template, its capabilities, and errors."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import ByT5Tokenizer

from harness.data.sample import Sample
from harness.models.prompts.chat import Prompt, PromptError, prompt_text, write_prompt
from harness.models.prompts.prompt import encode
from harness.models.registry import find_model
from harness.models.vlm import Vlm, load_vlm
from harness.tests.support.processors import FAMILIES, make_processor
from harness.tests.support.tiny import tiny_samples, tiny_vlm

INSTRUCTION = "what is it?"


def with_template(vlm: Vlm, template: str | None) -> Any:
    """Return the tiny processor with another chat template."""
    processor = copy.copy(vlm.processor)
    processor.chat_template = template
    return processor


@pytest.mark.parametrize(
    ("form", "prompt"),
    [
        ("{{ 'Q: ' + messages[0]['content'] }}", "Q: <image>\nwhat is it?"),
        ("Q: {{ messages[0]['content'] }}", "Q: <image>\nwhat is it?"),
        ("Q: {{ messages[0]['content'] | tojson }}", 'Q: "<image>\\nwhat is it?"'),
        ("<image>Q: {{ messages[0]['content'][1]['text'] }}", "<image>Q: what is it?"),
    ],
    ids=["concatenates", "prints", "writes json", "takes parts"],
)
def test_a_template_of_plain_messages_gets_the_image_token_and_a_line_break(vlm: Vlm, form: str, prompt: str) -> None:
    assert prompt_text(with_template(vlm, form), INSTRUCTION) == prompt


def test_the_template_of_the_tokenizer_is_used_if_the_processor_has_none(vlm: Vlm) -> None:
    processor = with_template(vlm, None)
    processor.tokenizer = copy.deepcopy(processor.tokenizer)
    processor.tokenizer.chat_template = "<image>T: {{ messages[0]['content'][1]['text'] }}"
    assert prompt_text(processor, INSTRUCTION) == "<image>T: what is it?"


def test_a_template_may_strip_the_instruction(vlm: Vlm) -> None:
    processor = with_template(vlm, "<s>Q: <image> {{ messages[0]['content'][1]['text'] | trim }} A:")
    assert write_prompt(processor, f" {INSTRUCTION}\n") == Prompt("<s>Q: <image> ", INSTRUCTION, " A:")
    sample = Sample("one", lambda: Image.new("RGB", (32, 32)), f" {INSTRUCTION}\n", ("a dog",), "one")
    batch = encode(processor, [sample], vlm.anatomy.image_positions)
    assert processor.tokenizer.decode(batch.inputs["input_ids"][batch.groups.instruction]).strip() == INSTRUCTION


def test_the_error_of_a_template_is_reported_with_a_remedy(vlm: Vlm) -> None:
    processor = with_template(vlm, "{{ raise_exception('roles must be Human and Bot') }}")
    with pytest.raises(
        PromptError, match=r"rejects .*\(roles must be Human and Bot\); put .*chat_template.jinja beside"
    ):
        prompt_text(processor, INSTRUCTION)


def test_a_prompt_without_the_image_token_names_the_processors_reason() -> None:
    processor = make_processor(FAMILIES["idefics3"])
    processor.chat_template = "Q: {{ messages[0]['content'][1]['text'] }} A:"
    sample = Sample("one", lambda: Image.new("RGB", (32, 32)), INSTRUCTION, ("a dog",), "one")
    with pytest.raises(PromptError, match=r"Idefics3Processor rejects the prompt 'Q: what is it\? A:'.*image token at"):
        encode(processor, [sample], lambda inputs: inputs["input_ids"] < 0)


def test_a_checkpoint_without_template_gets_it_from_a_file_beside_it(tmp_path: Path) -> None:
    directory, vlm = tmp_path / "mine", tiny_vlm()
    # A type without a registered prompt format.
    vlm.model.config.model_type = "vipllava"
    vlm.model.save_pretrained(directory)
    with_template(vlm, None).save_pretrained(directory)
    # VipLLaVA has a norm that LLaVA lacks.
    width, norm = vlm.model.config.vision_config.hidden_size, "multi_modal_projector.projector_layernorm"
    weights = load_file(directory / "model.safetensors")
    norm_weights = {f"{norm}.weight": torch.ones(width), f"{norm}.bias": torch.zeros(width)}
    save_file(weights | norm_weights, directory / "model.safetensors", {"format": "pt"})
    entry = find_model(str(directory))
    config = (directory / "config.json").read_text()
    (directory / "config.json").write_text(config.replace('"llava"', '"vipllava"'))
    with pytest.raises(PromptError, match=r"put a file chat_template.jinja beside the checkpoint's config.json"):
        prompt_text(load_vlm(entry, cache=tmp_path, device="cpu").processor, INSTRUCTION)
    (directory / "chat_template.jinja").write_text("<image>Mine: {{ messages[0]['content'][1]['text'] }}")
    assert (
        prompt_text(load_vlm(entry, cache=tmp_path, device="cpu").processor, INSTRUCTION) == "<image>Mine: what is it?"
    )


def test_a_bos_that_the_template_writes_is_not_written_twice() -> None:
    processor = make_processor(FAMILIES["llava"])
    image_token_id = processor.tokenizer.convert_tokens_to_ids("<image>")
    sample = Sample("one", lambda: Image.new("RGB", (32, 32)), "describe the image", ("a dog",), "one")
    for form in ("<s>Q: <image> {} A:", "Q: <image> {} A:"):
        processor.chat_template = form.replace("{}", "{{ messages[0]['content'][1]['text'] }}")
        ids = encode(processor, [sample], lambda inputs: inputs["input_ids"] == image_token_id).inputs["input_ids"]
        assert int((ids == processor.tokenizer.bos_token_id).sum()) == 1


def test_a_tokenizer_without_character_offsets_is_refused_with_the_remedy(vlm: Vlm) -> None:
    processor = copy.copy(vlm.processor)
    processor.tokenizer = ByT5Tokenizer(bos_token="<s>")
    processor.tokenizer.add_tokens(["<image>"], special_tokens=True)
    image_token_id = processor.image_token_id = processor.tokenizer.convert_tokens_to_ids("<image>")
    with pytest.raises(PromptError, match=r"ByT5Tokenizer, which has no character offsets .*tokenizer\.json"):
        encode(processor, tiny_samples(1), lambda inputs: inputs["input_ids"] == image_token_id)


def test_a_tokenizer_without_padding_is_refused_only_where_it_would_pad(vlm: Vlm) -> None:
    processor = copy.copy(vlm.processor)
    processor.tokenizer = copy.deepcopy(processor.tokenizer)
    processor.tokenizer.pad_token = None
    with pytest.raises(PromptError, match=r"no padding token.*set it \(processor.tokenizer.pad_token = "):
        encode(processor, tiny_samples(2), vlm.anatomy.image_positions)
    alone = encode(processor, tiny_samples(1), vlm.anatomy.image_positions)
    assert alone.hashes == encode(vlm.processor, tiny_samples(1), vlm.anatomy.image_positions).hashes


def test_packed_images_of_equal_patches_and_other_shape_have_other_hashes() -> None:
    processor = make_processor(FAMILIES["paddleocr_vl"])
    image_token_id = processor.tokenizer.convert_tokens_to_ids("<image>")
    landscape, portrait = (
        Sample(name, lambda size=size: Image.new("RGB", size, (99, 99, 99)), INSTRUCTION, ("a dog",), name)  # type: ignore[misc]
        for name, size in (("lying", (560, 280)), ("standing", (280, 560)))
    )
    batch = encode(processor, [landscape, portrait], lambda inputs: inputs["input_ids"] == image_token_id)
    assert batch.inputs["pixel_values"].shape[0] > 2
    assert batch.hashes[0].tokens == batch.hashes[1].tokens
    assert batch.hashes[0].pixels != batch.hashes[1].pixels
