"""Particularities of the bundled InstructBLIP: queries before the prompt, and a Q-Former that reads the instruction."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from harness.data.scenes import INSTRUCTION, scene, scenes
from harness.lab.training.trained_vision import TRAINED_VISION, chat_prompt, prompt_ids, prompt_inputs
from harness.models.bundled.scenes_instructblip import IMAGE_TOKENS, instruction_tokenizer, load
from harness.storage.cache_directory import default_cache

pytestmark = pytest.mark.bundled


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    return load(default_cache())


def test_the_queries_precede_the_declared_prompt(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    ids = prompt_inputs(processor)["input_ids"][0].tolist()
    assert ids[:IMAGE_TOKENS] == [model.config.image_token_index] * IMAGE_TOKENS
    assert ids[IMAGE_TOKENS] == processor.tokenizer.bos_token_id
    text = processor.tokenizer.decode(ids[IMAGE_TOKENS:])
    assert text == f"<|im_start|>user\n{INSTRUCTION}<|im_end|>\n<|im_start|>assistant\n"
    before, after = prompt_ids(processor, IMAGE_TOKENS)
    assert (before.tolist(), after.tolist()) == ([], ids[IMAGE_TOKENS:])


def test_the_image_token_has_the_mean_embedding_and_no_text_has_it(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    embedding = model.get_input_embeddings().weight
    token = model.config.image_token_index
    assert len(embedding) == token + 1
    torch.testing.assert_close(embedding[token], embedding[:token].mean(0))
    texts = [INSTRUCTION, *(caption for sample in scenes(20, 0) for caption in sample.captions)]
    assert token not in {i for text in texts for i in processor.tokenizer(text).input_ids}


def test_the_qformer_reads_the_instruction_and_nothing_of_the_turns(loaded: tuple[Any, Any]) -> None:
    tokenizer = instruction_tokenizer()
    ids = tokenizer(chat_prompt(loaded[1])).input_ids
    assert tokenizer.convert_ids_to_tokens(ids) == ["[CLS]", "describe", "the", "image", ".", "[SEP]"]
    assert ids == tokenizer(INSTRUCTION).input_ids
    other = tokenizer("What is here? Say 3 words.").input_ids
    assert tokenizer.unk_token_id not in other


@torch.inference_mode()
def test_the_features_are_at_the_image_positions_and_depend_on_image_and_instruction(
    loaded: tuple[Any, Any],
) -> None:
    model, processor = loaded
    images, prompt = [scene(1, 0).render(), scene(2, 0).render()], chat_prompt(processor)
    batch = processor(images=images, text=[prompt, prompt], return_tensors="pt")
    decoder_inputs: list[torch.Tensor] = []
    hook = model.get_decoder().layers[0].register_forward_pre_hook(lambda _, args: decoder_inputs.append(args[0]))
    try:
        model(**batch, use_cache=False)
    finally:
        hook.remove()
    questions = {key: batch[key] for key in ("pixel_values", "qformer_input_ids", "qformer_attention_mask")}
    features = model.get_image_features(**questions, return_dict=True).pooler_output
    torch.testing.assert_close(decoder_inputs[0][:, :IMAGE_TOKENS], features)
    torch.testing.assert_close(
        decoder_inputs[0][:, IMAGE_TOKENS:], model.get_input_embeddings()(batch["input_ids"][:, IMAGE_TOKENS:])
    )
    # Training computes the same features from the tower's output as the model.
    rows = TRAINED_VISION["scenes-instructblip"].embed_image(
        model, model.vision_model(batch["pixel_values"]).last_hidden_state, batch
    )
    torch.testing.assert_close(rows, features)
    assert float((features[0] - features[1]).abs().max()) > 0.1 * float(features.abs().max())
    questions["qformer_input_ids"] = questions["qformer_input_ids"].flip(1)
    other = model.get_image_features(**questions, return_dict=True).pooler_output
    assert not torch.allclose(features, other, rtol=1e-3)
