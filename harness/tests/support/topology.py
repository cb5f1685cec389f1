"""LLaVA-1.5-7B and InstructBLIP-Vicuna-7B with random weights and, optionally, a reduced width.

Layers, tokens, image and patch sizes, and vocabularies are the published ones. InstructBLIP is the version for
transformers 4.47 and later: 32,064 rows, `[PAD]` 32,000, `<image>` 32,001 and `</s>` as BOS. The version of 2023 had
32,001 rows and no image token. The repository has no chat template and names a video processor.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import InstructBlipProcessor, LlavaProcessor

from harness.data.sample import Sample
from harness.lab.cost.published import (
    DEPTH,
    PATCH,
    Width,
    instructblip_config,
    llava_config,
    random_model,
)
from harness.models.anatomy import find_anatomy
from harness.models.bundled.checkpoint import pillow_processor
from harness.models.prompts.chat_templates import BARE
from harness.models.vlm import Vlm
from harness.tests.support.local_tokenizers import llama_tokenizer, qformer_tokenizer

INSTRUCTION = "Describe the image."
_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
REDUCED = Width(64, 4, 128)


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


def random_llava(width: Width | None = REDUCED, layers: int = DEPTH, **options: Any) -> Vlm:
    """Return LLaVA-1.5-7B with random weights; `options` are passed to `random_model`."""
    model = random_model(llava_config(width, layers), **options)
    return Vlm("drawn-llava", model, llava_processor(), find_anatomy(model))


def random_instructblip(width: Width | None = REDUCED, layers: int = DEPTH, **options: Any) -> Vlm:
    """Return InstructBLIP-Vicuna-7B with random weights and the bare instruction as prompt."""
    model, processor = random_model(instructblip_config(width, layers), **options), instructblip_processor()
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
