"""The parts of a model are found by structure. A model without such parts is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.utils import logging

from harness.models.anatomy import AnatomyError, find_anatomy, output_projection
from harness.models.vlm import Vlm

VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
QFORMER = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "vocab_size": 50,
    "encoder_hidden_size": 16,
}
T5 = {"vocab_size": 100, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 3, "num_heads": 4}
IMAGE_TOKEN = 99


def llama_config() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
    )


def make_instructblip(text_config: Any, **options: Any) -> Any:
    """Return a tiny InstructBLIP whose tower, Q-Former and decoder all have three layers."""
    logging.set_verbosity_error()
    config = InstructBlipConfig(
        vision_config=VISION, qformer_config=QFORMER, text_config=text_config, num_query_tokens=4, **options
    )
    model = InstructBlipForConditionalGeneration(config).eval()
    with torch.no_grad():
        # A new model has zeros here, which would make all image tokens equal.
        model.query_tokens.normal_(generator=torch.Generator().manual_seed(0))
    return model


def test_parts_of_a_llava(vlm: Vlm) -> None:
    model, anatomy = vlm.model, vlm.anatomy
    decoder = model.model.language_model
    assert anatomy.layers == tuple(decoder.layers)
    assert anatomy.final_norm is decoder.norm
    assert anatomy.unembedding is model.lm_head
    assert anatomy.text_config is model.config.text_config
    assert (anatomy.attention_key, anatomy.depth, anatomy.width) == ("text_config", 4, 32)
    assert anatomy.image_token_id == vlm.processor.tokenizer.convert_tokens_to_ids("<image>")


def test_parts_of_an_instructblip() -> None:
    """Tower and Q-Former have as many layers as the decoder but are not confused with it."""
    model = make_instructblip(llama_config(), image_token_index=IMAGE_TOKEN)
    anatomy = find_anatomy(model)
    decoder = model.language_model.model
    assert anatomy.layers == tuple(decoder.layers)
    assert anatomy.final_norm is decoder.norm
    assert anatomy.unembedding is model.language_model.lm_head
    assert anatomy.text_config is decoder.config
    assert (anatomy.attention_key, anatomy.depth, anatomy.image_token_id) == ("text_config", 3, IMAGE_TOKEN)


def test_layers_of_the_decoder_s_attention(vlm: Vlm) -> None:
    owner = vlm.anatomy.layer_by_module()
    for index, layer in enumerate(vlm.anatomy.layers):
        assert owner[id(layer.self_attn)] == index
        assert output_projection(layer.self_attn) is layer.self_attn.o_proj
    tower = vlm.model.model.vision_tower
    assert not any(id(module) in owner for module in tower.modules())


@pytest.mark.parametrize("kind", ["bare T5", "InstructBLIP with T5"])
def test_encoder_decoders_are_refused(kind: str) -> None:
    if kind == "bare T5":
        model = T5ForConditionalGeneration(T5Config(**T5))
    else:
        model = make_instructblip(T5Config(**T5), image_token_index=IMAGE_TOKEN)
    with pytest.raises(
        AnatomyError, match=f"^{type(model).__name__} is an encoder-decoder: .*Use a decoder-only model"
    ):
        find_anatomy(model)


def test_image_positions_may_be_passed() -> None:
    anatomy = find_anatomy(LlamaForCausalLM(llama_config()), image_positions=lambda inputs: inputs["input_ids"] > 5)
    positions = anatomy.image_positions({"input_ids": torch.tensor([[1, 6, 7, 2]])})
    assert positions.tolist() == [[False, True, True, False]]


def test_a_model_without_image_token_is_refused() -> None:
    with pytest.raises(AnatomyError, match=r"pass find_anatomy\(model, image_positions=\.\.\.\)"):
        find_anatomy(LlamaForCausalLM(llama_config()))
    with pytest.raises(AnatomyError, match=r"configuration of LlamaForCausalLM names no image token \(image_token_id"):
        find_anatomy(LlamaForCausalLM(llama_config()))
    with pytest.raises(
        AnatomyError, match="configuration of InstructBlipForConditionalGeneration names no image token"
    ):
        find_anatomy(make_instructblip(llama_config()))


def test_a_model_without_decoder_is_refused() -> None:
    with pytest.raises(AnatomyError, match="CLIPVisionModel has no list of 3 decoder layers"):
        find_anatomy(CLIPVisionModel(CLIPVisionConfig(**VISION)))


def test_a_missing_part_is_named(fresh_vlm: Vlm) -> None:
    fresh_vlm.model.model.language_model.norm = nn.Identity()
    with pytest.raises(AnatomyError, match="no final norm of width 32"):
        find_anatomy(fresh_vlm.model)


def test_a_final_norm_without_weight_is_named(fresh_vlm: Vlm) -> None:
    fresh_vlm.model.model.language_model.norm = nn.LayerNorm(32, elementwise_affine=False)
    with pytest.raises(AnatomyError, match=r"no final norm of width 32 .*: its norm \(LayerNorm\) has no weight, by "):
        find_anatomy(fresh_vlm.model)


def test_an_unembedding_of_another_width_is_refused(fresh_vlm: Vlm) -> None:
    fresh_vlm.model.lm_head = nn.Linear(16, 400)
    fresh_vlm.model.model.language_model.get_output_embeddings = lambda: None
    with pytest.raises(AnatomyError, match="no unembedding of width 32"):
        find_anatomy(fresh_vlm.model)


def test_an_attention_without_output_projection_is_refused() -> None:
    with pytest.raises(AnatomyError, match=r"Identity has no output projection named o_proj, out_proj, dense"):
        output_projection(nn.Identity())
