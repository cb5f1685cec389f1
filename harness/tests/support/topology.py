"""LLaVA-1.5-7B and InstructBLIP-Vicuna-7B with random weights and, optionally, a reduced width.

Layers, tokens, image and patch sizes, and vocabularies are the published ones. InstructBLIP is the version for
transformers 4.47 and later: 32,064 rows, `[PAD]` 32,000, `<image>` 32,001 and `</s>` as BOS. The version of 2023 had
32,001 rows and no image token. The repository has no chat template and names a video processor.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    InstructBlipConfig,
    InstructBlipProcessor,
    InstructBlipQFormerConfig,
    InstructBlipVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaProcessor,
    PreTrainedConfig,
)

from harness.data.sample import Sample
from harness.models.anatomy import find_anatomy
from harness.models.bundled.checkpoint import pillow_processor
from harness.models.prompts.chat_templates import BARE
from harness.models.vlm import Vlm
from harness.tests.support.local_tokenizers import llama_tokenizer, qformer_tokenizer

DEPTH, VOCABULARY = 32, 32_064
INSTRUCTION = "Describe the image."
PATCH = 14
# Standard deviations relative to 1 / sqrt(inputs). Wide queries and keys give attention peaks. Narrow outputs prevent
# the tokens of a random tower from becoming equal.
_WIDE, _NARROW = 1.5, 0.3
_ATTENTION_INPUTS = ("q_proj", "k_proj", "query.", "key.", "qkv")
_BLOCK_OUTPUTS = (
    "o_proj",
    "out_proj",
    "down_proj",
    "fc2",
    "self_attn.projection",
    "output.dense",
    "output_query.dense",
)
_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Width:
    """The width of a transformer: residual stream, number of heads, and inner width of its feed-forward layers."""

    hidden: int
    heads: int
    inner: int

    def sizes(self) -> dict[str, int]:
        return {"hidden_size": self.hidden, "num_attention_heads": self.heads, "intermediate_size": self.inner}


REDUCED = Width(64, 4, 128)
LLAMA, CLIP_L, EVA_G, BERT = Width(4096, 32, 11_008), Width(1024, 16, 4096), Width(1408, 16, 6144), Width(768, 12, 3072)


def llava_config(width: Width | None = None) -> LlavaConfig:
    """Return the configuration of LLaVA-1.5-7B. `width` applies to every part; None selects the published widths."""
    return LlavaConfig(
        vision_config=CLIPVisionConfig(
            **(width or CLIP_L).sizes(), num_hidden_layers=24, image_size=336, patch_size=PATCH, projection_dim=768
        ),
        text_config=LlamaConfig(
            **(width or LLAMA).sizes(),
            vocab_size=VOCABULARY,
            num_hidden_layers=DEPTH,
            max_position_embeddings=4096,
            rms_norm_eps=1e-5,
        ),
        image_token_index=32_000,
        image_seq_length=576,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        pad_token_id=32_001,
    )


def instructblip_config(width: Width | None = None) -> InstructBlipConfig:
    """Return the configuration of InstructBLIP-Vicuna-7B; `width` as in `llava_config`."""
    return InstructBlipConfig(
        vision_config=InstructBlipVisionConfig(
            **(width or EVA_G).sizes(), num_hidden_layers=39, image_size=224, patch_size=PATCH
        ),
        qformer_config=InstructBlipQFormerConfig(
            **(width or BERT).sizes(), num_hidden_layers=12, cross_attention_frequency=2, vocab_size=30_523
        ),
        text_config=LlamaConfig(
            **(width or LLAMA).sizes(),
            vocab_size=VOCABULARY,
            num_hidden_layers=DEPTH,
            rms_norm_eps=1e-6,
            # The published ids. They differ from the tokenizer's, whose BOS and EOS are both 2.
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=32_000,
        ),
        num_query_tokens=32,
        image_token_index=32_001,
    )


def llava_processor() -> LlavaProcessor:
    return LlavaProcessor(
        pillow_processor("CLIPImageProcessor")(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}),
        llama_tokenizer(("<image>", "<pad>"), "<pad>"),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_TEMPLATE,
    )


def instructblip_processor() -> InstructBlipProcessor:
    """Return the processor as it is published, without a chat template."""
    return InstructBlipProcessor(
        pillow_processor("BlipImageProcessor")(size={"height": 224, "width": 224}),
        llama_tokenizer(("[PAD]", "<image>", "<video>"), "[PAD]", bos="</s>", unk="</s>"),
        qformer_tokenizer(),
        num_query_tokens=32,
    )


def random_model(
    config: PreTrainedConfig, seed: int = 0, *, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> Any:
    """Return a model with weights drawn on its device: states of order one, attention with peaks, distinct queries."""
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    generator = torch.Generator(device).manual_seed(seed)
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                norm = "norm" in name.lower() and name.endswith("weight")
                parameter.normal_(1.0 if norm else 0.0, 0.1, generator=generator)
            elif id(parameter) in embeddings or name.endswith(("query_tokens", "embedding")):
                parameter.normal_(0.0, 1.0, generator=generator)
            else:
                spread = _WIDE if any(part in name for part in _ATTENTION_INPUTS) else 1.0
                spread = _NARROW if any(part in name for part in _BLOCK_OUTPUTS) else spread
                parameter.normal_(0.0, spread * parameter[0].numel() ** -0.5, generator=generator)
    return model.eval().requires_grad_(False)


def random_llava(width: Width | None = REDUCED, **options: Any) -> Vlm:
    """Return LLaVA-1.5-7B with random weights; `options` are passed to `random_model`."""
    model = random_model(llava_config(width), **options)
    return Vlm("drawn-llava", model, llava_processor(), find_anatomy(model))


def random_instructblip(width: Width | None = REDUCED, **options: Any) -> Vlm:
    """Return InstructBLIP-Vicuna-7B with random weights and the bare instruction as prompt."""
    model, processor = random_model(instructblip_config(width), **options), instructblip_processor()
    processor.chat_template = BARE
    return Vlm("drawn-instructblip", model, processor, find_anatomy(model))


def save_llava(directory: Path) -> None:
    """Write a checkpoint of the reduced LLaVA with its processor, as `save_pretrained` does."""
    random_model(llava_config(REDUCED)).save_pretrained(directory)
    llava_processor().save_pretrained(directory)


def save_instructblip(directory: Path) -> None:
    """Write a checkpoint of the reduced InstructBLIP with its processor, which has no chat template."""
    random_model(instructblip_config(REDUCED)).save_pretrained(directory)
    instructblip_processor().save_pretrained(directory)


def convert_to_published(directory: Path) -> None:
    """Convert the processor files of `save_instructblip` to those of the published repository.

    The repository shares them with InstructBlipVideo: `processor_config.json` names the video processor, and the image
    settings are in a separate file.
    """
    saved = directory / "processor_config.json"
    pictures = json.loads(saved.read_text())["image_processor"] | {"processor_class": "InstructBlipProcessor"}
    (directory / "preprocessor_config.json").write_text(json.dumps(pictures))
    saved.write_text(json.dumps({"num_query_tokens": 32, "processor_class": "InstructBlipVideoProcessor"}))


def random_photographs(n: int) -> list[Sample]:
    """Return samples of smooth random images, alternately landscape and portrait, with the same instruction."""
    sizes = ((320, 240), (213, 320))
    captions = ("a dog is standing on the green grass", "two people riding a red bus in the street")

    def picture(index: int) -> Any:
        generator = torch.Generator().manual_seed(index)
        coarse = torch.randint(0, 256, (6, 8, 3), generator=generator, dtype=torch.uint8)
        return lambda: Image.fromarray(coarse.numpy()).resize(sizes[index % 2], Image.Resampling.BICUBIC)

    names = [f"photograph-{index}" for index in range(n)]
    return [Sample(name, picture(index), INSTRUCTION, (captions[index % 2],), name) for index, name in enumerate(names)]
