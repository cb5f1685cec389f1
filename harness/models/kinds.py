"""What must be known of a model type beyond its structure: the one table of such rows, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from harness.models.prompts.templates import BARE, IMAGE_FIRST, IMAGE_LAST, LLAVA


@dataclass(frozen=True, slots=True)
class Kind:
    """What structure does not tell of a model type, and `reason`, why.

    `refused` says that the type cannot be measured. `chat_template` words the prompt where a processor has no template
    of its own. `image_input` is the model input that marks the image positions, where no token id does; `image_field`
    the configuration's field of that id, where it has an unusual name. `answer_type` is the token type of an answer.
    `tiny` are fields of a small configuration, by dotted path, that the defaults leave open or that do not follow from
    widths and depths.
    """

    reason: str
    refused: bool = False
    chat_template: str = ""
    image_input: str = ""
    image_field: str = ""
    answer_type: int = 0
    tiny: Mapping[str, Any] = field(default_factory=dict)


#: The predicate of the sentence about a model with an encoder beside its decoder.
ENCODER_DECODER = (
    "is an encoder-decoder: image and instruction tokens do not share one residual stream, so the phases are not "
    "defined for it. Use a decoder-only model."
)
_CROSS = "image features enter by cross-attention; no position of the residual stream is an image token"
_STREAMS = "several residual streams run side by side, so there is no one stream to follow"
_BLOCKS = "its layers attend over the sums of earlier blocks of layers too, so there is no one stream to follow"
_HALF_ROTARY = "half of each head is rotated in the published models, which the default configuration leaves out"
_HALF = {"text_config.rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}}
_SECTIONS = "older releases have no rotary sections by default"
_ROTARY = {"text_config.rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}}
_THINKER = "the thinker's markers stand in the configuration of the whole model"
_CODES = "pictures become entries of the vocabulary by a map that the default configuration leaves out"
_SHARED_KEYS = "the published models' last layers share the keys and values of earlier ones, which is off by default"
_SHARED = {
    "text_config.layer_types": ["sliding_attention", "full_attention"] * 2,
    "text_config.num_kv_shared_layers": 2,
}
_FOLDED = "neighbouring patches are folded into one of four times the width"

KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "blip": Kind(_CROSS, refused=True),
        "diffusion_gemma": Kind(
            "a block of tokens is denoised beside the prompt: prompt and answer share no residual stream", refused=True
        ),
        "evolla": Kind("it reads proteins, not pictures", refused=True),
        "gemma3n": Kind(_STREAMS, refused=True),
        "git": Kind("its attention function cannot be exchanged (no AttentionInterface)", refused=True),
        "glm5_next": Kind(_STREAMS, refused=True),
        "idefics": Kind(_CROSS, refused=True),
        "inkling2": Kind(_BLOCKS, refused=True),
        "inkling2_loop": Kind(_BLOCKS, refused=True),
        "mistral4": Kind("it takes no pictures", refused=True),
        "mllama": Kind(_CROSS, refused=True),
        "pi0": Kind("it predicts a robot's actions and has no vocabulary to decode with", refused=True),
        "qwen4_exp": Kind(_STREAMS, refused=True),
        "llava": Kind("early checkpoints were published without the template of LLaVA-1.5", chat_template=LLAVA),
        "instructblip": Kind("it knows no roles, and its processors have no template", chat_template=BARE),
        "blip-2": Kind("it knows no roles, and its processors have no template", chat_template=BARE),
        "paligemma": Kind(
            "it knows no roles, and its processor adds BOS and the line break behind; tokens of type 0 are its prefix, "
            "which attends in both directions, and would see the answer",
            chat_template=IMAGE_FIRST,
            answer_type=1,
        ),
        "instructblipvideo": Kind("its pictures are frames of a video", image_field="video_token_index"),
        "kosmos-2": Kind(
            "the processor marks the positions, no token id does", image_input="image_embeds_position_mask"
        ),
        "kosmos-2.5": Kind(
            "the processor marks the positions, no token id does",
            image_input="image_embeds_position_mask",
            tiny={"vision_config.max_num_patches": 64, "vision_config.patch_embed_hidden_size": 768},
        ),
        "aria": Kind(
            "patches are mapped to queries by a table of their numbers",
            tiny={"projector_patch_to_query_dict": {64: 16}},
        ),
        "chameleon": Kind(
            f"its authors' examples have the image behind the question, and it has no template; {_CODES}",
            chat_template=IMAGE_LAST,
            tiny={
                "image_token_id": 300,
                "vocabulary_map": {"<image>": 300} | {f"IMGIMG{chr(65 + code)}Z": 301 + code for code in range(10)},
                "vq_config.num_embeddings": 10,
                "vq_config.resolution": 64,
                "vq_config.base_channels": 32,
                "vq_config.embed_dim": 64,
                "vq_config.latent_channels": 64,
            },
        ),
        "emu3": Kind(
            _CODES,
            tiny={
                "image_token_id": 290,
                "vocabulary_map": {"<image>": 290, "<|extra_200|>": 291}
                | {f"<|visual token {code:06d}|>": 292 + code for code in range(16)},
                "vq_config.codebook_size": 16,
                "vq_config.base_channels": 32,
                "vq_config.embed_dim": 4,
                "vq_config.hidden_size": 128,
            },
        ),
        "cohere_compass": Kind(
            "every kind of layer has its own rotary parameters, which the default configuration leaves out",
            tiny={
                "text_config.rope_parameters": {
                    "full_attention": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [24, 20, 20]},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [24, 20, 20]},
                }
            },
        ),
        "deepseek_ocr2": Kind(
            "the default configuration leaves the experts' layers open; the picture is read at its full size",
            tiny={
                "text_config.mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
                "text_config.num_experts_per_tok": 2,
                "vision_config.sam_config.image_size": 1024,
                "vision_config.sam_config.num_hidden_layers": 1,
                "vision_config.sam_config.global_attn_indexes": [0],
                "vision_config.sam_config.downsample_channels": [64, 256],
            },
        ),
        "unlimited_ocr": Kind(
            "the picture is read at its full size",
            tiny={
                "vision_config.sam_config.image_size": 1024,
                "vision_config.sam_config.num_hidden_layers": 1,
                "vision_config.sam_config.global_attn_indexes": [0],
                "vision_config.sam_config.downsample_channels": [64, 256],
                "vision_config.encoder_config.image_size": 224,
            },
        ),
        "deepseek_vl_hybrid": Kind(
            "two readers of the picture meet at one grid",
            tiny={
                "high_res_vision_config.image_size": 1024,
                "high_res_vision_config.num_hidden_layers": 1,
                "high_res_vision_config.global_attn_indexes": [0],
                "vision_config.image_size": 384,
                "vision_config.patch_size": 16,
            },
        ),
        "dots3_note": Kind(
            "every sliding layer has widths of its own, and the rotated and unrotated parts of its heads sum up",
            tiny={
                "text_config.per_layer_config": {
                    at: {"qk_nope_head_dim": 64, "qk_rope_head_dim": 64, "head_dim": 128} for at in (2, 3)
                }
            },
        ),
        "fast_vlm": Kind("its vision tower has one size", tiny={"vision_config.hidden_size": 3072}),
        "paddleocr_vl": Kind(_SECTIONS, tiny=_ROTARY),
        "pixtral": Kind("older releases list it, but it is a vision tower alone", refused=True),
        "qwen2_vl": Kind(_SECTIONS, tiny=_ROTARY),
        "qwen2_5_vl": Kind(_SECTIONS, tiny=_ROTARY),
        "vision-encoder-decoder": Kind("it is an encoder-decoder of any two models", refused=True),
        "gemma4": Kind(_SHARED_KEYS, tiny=_SHARED),
        "gemma4_unified": Kind(_SHARED_KEYS, tiny=_SHARED),
        "glm46v": Kind(_HALF_ROTARY, tiny=_HALF),
        "glm4v": Kind(_HALF_ROTARY, tiny=_HALF),
        "glm_ocr": Kind(_HALF_ROTARY, tiny=_HALF),
        "glmga": Kind(_HALF_ROTARY, tiny=_HALF),
        "granite4_vision": Kind(
            "which vision layers reach which decoder layers is left open",
            tiny={
                "deepstack_layer_map": [[1, 1], [2, 2]],
                "downsample_rate": "4/8",
                # Older releases take another decoder by default, whose configuration lacks them.
                "text_config.attention_multiplier": 1.0,
                "text_config.embedding_multiplier": 1.0,
                "text_config.residual_multiplier": 1.0,
                "text_config.logits_scaling": 1.0,
            },
        ),
        "hunyuan_vl": Kind(
            "rotary axes are left open",
            tiny={
                "text_config.head_dim": 128,
                "text_config.rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 1e4,
                    "mrope_section": [16, 16, 16, 16],
                },
            },
        ),
        "kimi_k25": Kind("its head width is that of the rotated part", tiny={"text_config.head_dim": 64}),
        "minimax_m3_vl": Kind(_FOLDED, tiny={"merged_hidden_size": 1024}),
        "apertus1p5": Kind(
            "pictures and sounds become entries of the vocabulary, in ranges that follow each other",
            tiny={
                "image_token_id": 280,
                "audio_token_id": 281,
                "image_token_offset": 290,
                "audio_token_offset": 306,
                "vision_config.codebook_size": 16,
                "vision_config.base_channels": 32,
                "vision_config.embed_dim": 64,
                "vision_config.latent_channels": 64,
                "vision_config.resolution": 64,
                "audio_config.codebook_size": 8,
                "audio_config.codebook_dim": 256,
            },
        ),
        "hy_v4_vl": Kind(_STREAMS, refused=True),
        "llama4": Kind(_FOLDED, tiny={"vision_config.intermediate_size": 1024}),
        "muse_glimmer": Kind(_FOLDED, tiny={"out_hidden_size": 1024}),
        "muse_spark": Kind(_FOLDED, tiny={"out_hidden_size": 1024}),
        "molmo2": Kind("the picture's size is a list", tiny={"vision_config.image_size": [112, 112]}),
        "qwen2_5_omni_thinker": Kind(f"{_THINKER}; {_SECTIONS}", tiny={"vision_start_token_id": 310, **_ROTARY}),
        "qwen3_omni_moe_thinker": Kind(_THINKER, tiny={"vision_start_token_id": 310}),
        "perception_lm": Kind(
            "its vision tower's size is left open",
            tiny={
                "vision_config.architecture": "vit_pe_core_tiny_patch16_384",
                "vision_config.model_args": {"embed_dim": 192, "img_size": [128, 128], "depth": 2, "global_pool": ""},
            },
        ),
        "step3p7": Kind("the width of its sliding windows is left open", tiny={"text_config.sliding_window": 16}),
    }
)

_PLAIN = Kind("structure tells everything")


def kind_of(model_type: str) -> Kind:
    """The row of a type; an empty one where structure tells everything."""
    return KINDS.get(model_type, _PLAIN)
