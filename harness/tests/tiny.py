"""A tiny random LLaVA with grouped KV heads, biases and a real processor: every part of the real thing, in kilobytes."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from harness.data.sample import Sample
from harness.models.anatomy import find_anatomy
from harness.models.vlm import Vlm

SIDE, PATCH = 32, 8
TEXTS = [
    "a red circle above a blue square",
    "a green star left of a yellow heart",
    "describe the image please",
    "what is in the picture?",
]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "<image>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" " + text for text in TEXTS] * 20, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<image>"],
        padding_side="left",
    )


def tiny_vlm(
    seed: int = 0,
    *,
    dtype: torch.dtype = torch.float32,
    bias: bool = True,
    layers: int = 4,
    attention: str = "sdpa",
) -> Vlm:
    tokenizer = tiny_tokenizer()
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"height": SIDE, "width": SIDE}, crop_size={"height": SIDE, "width": SIDE}),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=(
            "<s>USER: {% for part in messages[0]['content'] %}{% if part['type'] == 'image' %}<image>\n{% else %}"
            "{{ part['text'] }}{% endif %}{% endfor %} ASSISTANT:"
        ),
    )
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=SIDE,
            patch_size=PATCH,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            attention_bias=bias,
            bos_token_id=tokenizer.bos_token_id,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=(SIDE // PATCH) ** 2,
        attn_implementation=attention,
    )
    generator = torch.Generator().manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.25 if parameter.ndim > 1 else 0.1
            offset = 1.0 if parameter.ndim == 1 and float(parameter.mean()) > 0.5 else 0.0
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale + offset)
    model = model.to(dtype).eval().requires_grad_(False)
    return Vlm("tiny-llava", model, processor, find_anatomy(model))


def tiny_samples(n: int = 4) -> list[Sample]:
    instructions = ["describe the image please", "what is in the picture?", "a red circle above a blue square"]

    def picture(index: int) -> Any:
        generator = torch.Generator().manual_seed(1000 + index)
        pixels = torch.randint(0, 256, (SIDE, SIDE, 3), generator=generator, dtype=torch.uint8)
        return lambda: Image.fromarray(pixels.numpy())

    captions = [("a red circle above a blue square",), ("a green star left of a yellow heart",)]
    return [
        Sample(f"tiny-{index}", picture(index), instructions[index % 3], captions[index % 2], f"tiny-{index}")
        for index in range(n)
    ]
