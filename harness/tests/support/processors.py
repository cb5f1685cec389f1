"""Processors of many model families from transformers, with local tokenizers.

Special tokens and image positions are those of the published checkpoints. Vocabularies and image sizes are smaller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import pytest
import transformers
from transformers import AddedToken

from harness.models.prompts.chat_templates import BARE, IMAGE_FIRST
from harness.tests.support.local_tokenizers import llama_tokenizer, qformer_tokenizer
from harness.tests.support.tiny import tiny_tokenizer

_PARTS = (
    "{% for part in messages[0]['content'] %}{% if part['type'] == 'image' %}IMAGE{% else %}"
    "{{ part['text'] | trim }}{% endif %}{% endfor %}"
)
VICUNA = "USER: " + _PARTS.replace("IMAGE", "IMAGE\n") + " ASSISTANT:"
CHATML = "<|im_start|>user\n" + _PARTS + "<|im_end|>\n<|im_start|>assistant\n"
# The template writes BOS, which the tokenizer adds as well.
GEMMA = "{{ bos_token }}<start_of_turn>user\n" + _PARTS + "<end_of_turn>\n<start_of_turn>model\n"
# The image follows the instruction, whatever their order in the message.
BEHIND = "{% for part in messages[0]['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}\nIMAGE"
# Templates for messages of plain text. Given a list, the first fails and the second prints the list.
CONCATENATING = "{{ 'USER: ' + messages[0]['content'] + ' ASSISTANT:' }}"
PRINTING = "USER: {{ messages[0]['content'] }} ASSISTANT:"


@dataclass(frozen=True, slots=True)
class Family:
    """The settings of a model type's processor.

    `classes` names the classes of the processor, the image processor and, for some, the video processor, without their
    common endings. `feature` is the token at each image feature, `placeholder` the text that the template writes.
    `named` holds tokens that are attributes of the tokenizer, `more` further tokens. `llama` selects a tokenizer that
    marks spaces and adds BOS; the default works on bytes without BOS. `options` and `pictures` are passed to the
    processor and the image processor. `one_length` is True if image tokens precede the padding, so that all prompts of
    a batch must have the same length."""

    classes: tuple[str, ...]
    template: str = VICUNA
    feature: str = "<image>"
    placeholder: str = ""
    named: Mapping[str, str] = field(default_factory=dict)
    more: tuple[str, ...] = ()
    llama: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    pictures: Mapping[str, Any] = field(default_factory=dict)
    one_length: bool = False


_SMALL = {"size": {"height": 56, "width": 56}}
_EDGE = {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}
_VIT = {"patch_size": 14, "vision_feature_select_strategy": "default"}
_IMAGE = {"image_token": "<image>"}
_BORDERS = _IMAGE | {"boi_token": "<boi>", "eoi_token": "<eoi>"}
_CHAT = ("<|im_start|>", "<|im_end|>")
_TURNS = ("<start_of_turn>", "<end_of_turn>")
_TILES = ("<fake_token_around_image>", "<global-img>", "<end_of_utterance>", "<image>", "<video>")
_VISION = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", *_CHAT)
_PADS = {"template": CHATML, "feature": "<|image_pad|>", "more": _VISION}
_QWEN = _PADS | {"placeholder": "<|vision_start|><|image_pad|><|vision_end|>"}
_GLM = ("<|image|>", "<|video|>", "<|begin_of_video|>", "<|end_of_video|>", "<|begin_of_image|>", "<|end_of_image|>")
_MEDIA = {name: f"<{name}>" for name in ("audio_token", "boa_token", "eoa_token")}
_INTERNVL = {f"{name}_image_token": f"<{name}>" for name in ("start", "end", "context")} | {"video_token": "<video>"}
_MINICPM = {
    f"{name}_token": f"<{name}>"
    for name in ("image_start", "image_end", "image_id_start", "image_id_end", "slice_start", "slice_end", "video")
}

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "llava": Family(
            ("Llava", "CLIP"), options=_VIT | {"num_additional_image_tokens": 1}, pictures=_EDGE, llama=True
        ),
        "vipllava": Family(("Llava", "CLIP"), CONCATENATING, options=_VIT, pictures=_EDGE),
        "llava_next": Family(("LlavaNext", "LlavaNext"), PRINTING, options=_VIT, pictures=_EDGE),
        "llava_onevision": Family(
            ("LlavaOnevision", "LlavaOnevision", "LlavaOnevision"),
            CHATML,
            more=_CHAT,
            options={"num_image_tokens": 16, "vision_feature_select_strategy": "full"},
        ),
        "aria": Family(("Aria", "Aria"), CHATML, named=_IMAGE, more=_CHAT),
        "aya_vision": Family(
            ("AyaVision", "GotOcr2"),
            feature="<|IMG_PATCH|>",
            more=("<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>"),
            options={"patch_size": 14, "img_size": 56},
            pictures=_SMALL,
        ),
        "blip-2": Family(
            ("Blip2", "Blip"), BARE, options={"num_query_tokens": 8}, pictures=_SMALL, llama=True, one_length=True
        ),
        "instructblip": Family(
            ("InstructBlip", "Blip"),
            BARE,
            options={"num_query_tokens": 8},
            pictures=_SMALL,
            llama=True,
            one_length=True,
        ),
        "chameleon": Family(("Chameleon", "Chameleon"), BEHIND, named=_BORDERS, options={"image_seq_length": 16}),
        "cohere2_vision": Family(
            ("Cohere2Vision", "Cohere2Vision"), named=_BORDERS | {"img_line_break_token": "<line>"}
        ),
        "deepseek_vl": Family(("DeepseekVL", "DeepseekVL"), BEHIND, named=_IMAGE, options={"num_image_tokens": 16}),
        "emu3": Family(
            ("Emu3", "Emu3"),
            named=_BORDERS | {"image_wrapper_token": "<wrap>", "eof_token": "<eof>"},
            pictures={"min_pixels": 64 * 64, "max_pixels": 128 * 128},
        ),
        "ernie4_5_vl_moe": Family(
            ("Ernie4_5_VLMoe", "Ernie4_5_VLMoe", "Ernie4_5_VLMoe"),
            named={
                f"{kind}{part}_token": f"<{kind}{part}>"
                for kind in ("image", "video")
                for part in ("", "_start", "_end")
            },
        ),
        "gemma3": Family(
            ("Gemma3", "Gemma3"),
            GEMMA,
            feature="<soft>",
            named=_BORDERS | {"image_token": "<soft>"},
            more=_TURNS,
            options={"image_seq_length": 16},
            pictures=_SMALL,
            llama=True,
        ),
        "gemma4": Family(
            ("Gemma4", "Gemma4", "Gemma4", "Gemma4Audio"),
            GEMMA,
            named=_BORDERS | _MEDIA,
            more=("<|video|>", *_TURNS),
            llama=True,
        ),
        "glm4v": Family(("Glm4v", "Glm4v", "Glm4v"), feature="<|image|>", more=_GLM),
        "got_ocr2": Family(
            ("GotOcr2", "GotOcr2"), CHATML, feature="<imgpad>", more=("<imgpad>", "<img>", "</img>", *_CHAT)
        ),
        "idefics2": Family(
            ("Idefics2", "Idefics2"), more=_TILES, options={"image_seq_len": 8}, pictures={"do_image_splitting": True}
        ),
        "idefics3": Family(
            ("Idefics3", "Idefics3"),
            more=_TILES,
            options={"image_seq_len": 9},
            pictures={"size": {"longest_edge": 128}, "max_image_size": {"longest_edge": 64}},
        ),
        "internvl": Family(
            ("InternVL", "GotOcr2", "InternVL"), CHATML, feature="<context>", named=_INTERNVL, more=_CHAT
        ),
        "janus": Family(("Janus", "Janus"), named=_BORDERS, options={"num_image_tokens": 16}),
        "kimi_k25": Family(("Kimi_K25", "Kimi_K25", "Kimi_K25"), feature="<|media_pad|>", more=("<|media_pad|>",)),
        "lfm2_vl": Family(
            ("Lfm2Vl", "Lfm2Vl"),
            CHATML,
            named=_IMAGE
            | {f"image_{name}_token": f"<|image_{name}|>" for name in ("start", "end")}
            | {"image_thumbnail_token": "<|img_thumbnail|>"},
            more=_CHAT,
        ),
        "lighton_ocr": Family(
            ("LightOnOcr", "Pixtral"),
            named=_IMAGE | {"image_break_token": "<break>", "image_end_token": "<end>"},
            options={"patch_size": 14, "spatial_merge_size": 2},
        ),
        "llama4": Family(
            ("Llama4", "Llama4"),
            feature="<|patch|>",
            more=("<|image|>", "<|patch|>", "<|image_start|>", "<|image_end|>", "<|tile_x_separator|>"),
            options={"patch_size": 14},
        ),
        "minicpmv4_6": Family(("MiniCPMV4_6", "MiniCPMV4_6", "MiniCPMV4_6"), named=_IMAGE | _MINICPM),
        "mistral3": Family(
            ("Pixtral", "Pixtral"),
            "{{ bos_token }}[INST]" + _PARTS + "[/INST]",
            feature="[IMG]",
            more=("[IMG]", "[IMG_BREAK]", "[IMG_END]", "[INST]", "[/INST]"),
            options={"patch_size": 14},
            llama=True,
        ),
        "molmo2": Family(
            ("Molmo2", "Molmo2", "Molmo2"),
            feature="<im_patch>",
            placeholder="<|image|>",
            more=("<im_patch>", "<im_col>", "<im_start>", "<im_end>", "<low_res_im_start>", "<|image|>", "<|video|>"),
        ),
        "ovis2": Family(
            ("Ovis2", "Ovis2"),
            feature="<IMG_ATOM>",
            more=("<IMG_ATOM>", "<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>"),
            options={"image_seq_length": 16},
        ),
        "paddleocr_vl": Family(("PaddleOCRVL", "PaddleOCRVL"), named=_IMAGE),
        "paligemma": Family(("PaliGemma", "Siglip"), IMAGE_FIRST, pictures=_SMALL, llama=True),
        "qwen2_vl": Family(("Qwen2VL", "Qwen2VL", "Qwen2VL"), **_QWEN),
        "qwen2_5_vl": Family(("Qwen2_5_VL", "Qwen2VL", "Qwen2VL"), **_QWEN),
        "qwen3_vl": Family(("Qwen3VL", "Qwen2VL", "Qwen3VL"), **_QWEN),
        "smolvlm": Family(
            ("SmolVLM", "SmolVLM", "SmolVLM"),
            more=_TILES,
            options={"image_seq_len": 9},
            pictures={"size": {"longest_edge": 128}, "max_image_size": {"longest_edge": 64}},
        ),
        "step3p7": Family(("Step3p7", "Step3p7"), feature="<im_patch>", more=("<im_patch>", "<patch_newline>")),
        "unlimited_ocr": Family(("UnlimitedOcr", "UnlimitedOcr"), named=_IMAGE),
        "video_llama_3": Family(("VideoLlama3", "VideoLlama3", "VideoLlama3"), **_PADS),
    }
)
_ENDINGS = ("Processor", "ImageProcessor", "VideoProcessor", "FeatureExtractor")
_PARAMETERS = ("image_processor", "video_processor", "feature_extractor")


def make_processor(family: Family) -> Any:
    """Return the processor of a family with its chat template.

    Skip the test if a package that the processor requires is missing.
    """
    tokens = ["<image>", *family.named.values(), *family.more]
    tokenizer = llama_tokenizer(["<pad>"], "<pad>") if family.llama else tiny_tokenizer()
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=True) for token in tokens])
    tokenizer._set_model_specific_special_tokens(dict(family.named))
    try:
        processor_class, *parts = (
            getattr(transformers, name + ending) for name, ending in zip(family.classes, _ENDINGS, strict=False)
        )
        made = dict(
            zip(
                _PARAMETERS,
                (part(**(family.pictures if index == 0 else {})) for index, part in enumerate(parts)),
                strict=False,
            )
        )
        if "instruct" in processor_class.__name__.lower():
            made["qformer_tokenizer"] = qformer_tokenizer()
        if processor_class.__name__ == "PaliGemmaProcessor":
            made["image_processor"].image_seq_length = 16
        processor = processor_class(tokenizer=tokenizer, **made, **family.options)
    except ImportError as error:
        pytest.skip(str(error).strip().splitlines()[0])
    placeholder = family.placeholder or str(getattr(processor, "image_token", None) or "")
    processor.chat_template = family.template.replace("IMAGE", placeholder)
    return processor
